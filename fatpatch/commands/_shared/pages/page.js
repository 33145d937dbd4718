"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 24, AHEAD = 12, PRINTED = 400, MOST_BOXES = 150, LEAST_AREA = 2;
  const [REGISTERS, SHARED, STACK, CODE, BODY] = [0, 1, 2, 3, 4];
  const STUB = 2;
  const METRICS = [[REGISTERS, "registers"], [CODE, "code bytes"], [SHARED, "shared memory, bytes"], [STACK, "stack, bytes"]];
  const [DIFF, FILES] = [data.mode === "diff", data.mode === "files"];
  const GRADES = ["good", "maybe", "bad"], MARKS = ["✓", "~", "✗"];
  let holder = data.holders[0];

  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const element = (parent, name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const options = (select, rows) => rows.forEach(([value, words]) => {
    element(select, "option", "", words).value = value;
  });
  const bytes = (value) => {
    for (const unit of ["B", "kB", "MB"]) {
      if (value < 999.95) return (unit === "B" ? value : value.toFixed(1)) + " " + unit;
      value /= 1000;
    }
    return value.toFixed(1) + " GB";
  };

  // What a cell says: of one release [numbers], of two [old, new].
  const differs = (old, fresh) => old.some((value, index) => value !== fresh[index]);
  const plainCell = (cell, metric, heat) => {
    if (!cell) return ["·", "none"];
    if (cell[BODY] === STUB) return ["stub", "stub"];
    const value = cell[metric];
    return value === null ? ["+", ""] : [String(value), heat(value)];
  };
  const diffCell = (cell, metric) => {
    if (!cell) return ["·", "none"];
    const [old, fresh] = cell;
    if (!old) return fresh[BODY] === STUB ? ["new stub", "gone"] : ["new", "new"];
    if (!fresh) return ["gone", "gone"];
    if (fresh[BODY] === STUB) return old[BODY] === STUB ? ["stub", "stub"] : ["now a stub", "gone"];
    if (old[BODY] === STUB) return ["now real", "new"];
    const [was, now] = [old[metric], fresh[metric]];
    if (was === now || was === null || now === null) return [now === null ? "+" : String(now), ""];
    return [was + " → " + now, now > was ? "more" : "less"];
  };
  const fileCell = (cell) => cell === null ? ["·", "none"] : holder.outcomes[cell];
  const gradeOf = (cell) => cell === null ? -1 : GRADES.indexOf(holder.outcomes[cell][1]);
  const details = (cell) => !cell ? "not there" : cell[BODY] === STUB ? "stub: traps or does nothing" :
    METRICS.map(([index, words]) => words + ": " + (cell[index] === null ? "not known" : cell[index])).join("\n");
  const tip = (cell) => FILES ? fileCell(cell)[0] : !DIFF || !cell ? details(cell) : "before:\n" + details(cell[0]) + "\nafter:\n" + details(cell[1]);
  const changed = (cell) => cell && (!cell[0] || !cell[1] || differs(cell[0], cell[1]));

  const FILTERS = FILES ? [
    ["all", "all libraries", () => true],
    ["bad", "those that do not run somewhere", (row) => row[1].some((cell) => gradeOf(cell) === 2)],
    ["good", "those that run everywhere", (row) => row[1].every((cell) => cell === null || gradeOf(cell) === 0)],
  ] : DIFF ? [
    ["changed", "what changed", (row) => row[1].some(changed)],
    ["gone", "what lost a target", (row) => row[1].some((cell) => cell && cell[0] && !cell[1])],
    ["new", "what gained a target", (row) => row[1].some((cell) => cell && !cell[0])],
    ["stubs", "new stubs", (row) => row[1].some((cell) => cell && cell[1] && cell[1][BODY] === STUB && !(cell[0] && cell[0][BODY] === STUB))],
    ["all", "all kernels", () => true],
  ] : [
    ["all", "all kernels", () => true],
    ["holes", "those that lack a target", (row) => row[1].includes(null)],
    ["stubs", "those with a stub", (row) => row[1].some((cell) => cell && cell[BODY] === STUB)],
    ["stack", "those that use the stack", (row) => row[1].some((cell) => cell && cell[STACK])],
  ];

  function heatmap() {
    const heat = byId("heat");
    if (!heat) return;
    const state = {rows: [], sort: -1, down: false, metric: REGISTERS, prefix: "", fits: 60};
    const pool = [];
    let table, body, top, bottom, buttons, bounds = [], lower = [];
    options(byId("only"), FILTERS.map(([value, words]) => [value, words]));
    options(byId("metric"), METRICS);
    byId("metric-label").hidden = FILES;
    heat.classList.toggle("files", FILES);
    const wide = () => heat.classList.toggle("wide", holder.targets.length > 12);
    const meaning = FILES ? "Each library (a file or member with GPU code) on the GPUs of a target; · is another vendor's GPU. On paper and on a phone ✓ runs, ~ in part or not sure, ✗ does not run." : DIFF
      ? "Each cell is the old and the new value where they differ; + is PTX, of which only the driver knows; · is not there."
      : "The deeper the colour, the larger the value; + is PTX, of which only the driver knows; · is not there; a stub is a body that traps or does nothing.";

    const value = (cell) => {
      if (FILES) return gradeOf(cell);
      const own = cell && DIFF ? cell[1] || cell[0] : cell;
      return own ? own[state.metric] === null ? -1 : own[state.metric] : -2;
    };
    const shade = (number) => {
      let index = 0;
      while (index < 7 && number > bounds[index]) index += 1;
      return "q" + index;
    };
    const scale = () => {
      if (FILES) return;
      const seen = [];
      for (const [, cells] of holder.kernels) for (const cell of cells) if (cell && !DIFF && cell[state.metric] !== null) seen.push(cell[state.metric]);
      seen.sort((a, b) => a - b);
      bounds = Array.from({length: 7}, (_, index) => seen[Math.floor((index + 1) * seen.length / 8)]);
    };
    const wanted = () => {
      const text = byId("filter").value.trim();
      const found = /^\/(.+)\/$/.exec(text);
      if (!found) {
        const part = text.toLowerCase();
        return (index) => lower[index].includes(part);
      }
      try {
        const pattern = new RegExp(found[1], "i");
        return (index) => pattern.test(holder.kernels[index][0]);
      } catch {
        return null;
      }
    };
    const choose = () => {
      const test = wanted();
      byId("filter").setAttribute("aria-invalid", String(test === null));
      if (test === null) return;
      const keep = FILTERS.find(([name]) => name === byId("only").value)[2];
      state.rows = holder.kernels.map((_, index) => index).filter((index) => test(index) && keep(holder.kernels[index]));
      const sign = state.down ? -1 : 1;
      if (state.sort >= 0) {
        const keys = new Map(state.rows.map((index) => [index, value(holder.kernels[index][1][state.sort])]));
        state.rows.sort((a, b) => sign * (keys.get(a) - keys.get(b)) || a - b);
      } else if (state.down) {
        state.rows.reverse();
      }
      byId("count").textContent = state.rows.length.toLocaleString("en") + " of " + holder.kernels.length.toLocaleString("en") + (FILES ? " libraries" : " kernels");
      table.setAttribute("aria-rowcount", String(state.rows.length + 1));
      heat.scrollTop = 0;
      draw();
    };
    // What all names begin with is said once; a name that is too long keeps its beginning and its end.
    const beginning = () => {
      const names = holder.kernels.map(([name]) => name);
      if (names.length < 2) return "";
      let end = 0;
      while (end < names[0].length && names.every((name) => name[end] === names[0][end])) end += 1;
      const whole = FILES ? /^.*[/!]/.exec(names[0].slice(0, end)) : /^(void )?([^<]*::)?/.exec(names[0].slice(0, end));
      return whole && whole[0].length > 4 ? whole[0] : "";
    };
    const shared = (one, other) => {
      let end = 0;
      while (end < one.length && one[end] === other?.[end]) end += 1;
      return end;
    };
    const middled = (name, index) => {
      let text = name.slice(state.prefix.length);
      if (text.length <= state.fits) return text;
      if (!FILES) text = text.replace(/^void /, "").replace(/\((?:[^()]|\([^()]*\))*\)$/, "") || text;
      if (text.length <= state.fits) return text;
      const around = [holder.kernels[index - 1], holder.kernels[index + 1]].map((row) => row && row[0] !== name ? shared(name, row[0]) : 0);
      const head = Math.floor(state.fits * .35), rest = state.fits - head - 1;
      const differs = Math.max(...around) - name.indexOf(text.slice(0, 20)) - 8;
      const start = differs > head && differs + rest < text.length ? differs : text.length - rest;
      return text.slice(0, head) + "…" + text.slice(start, start + rest);
    };
    const measure = () => {
      const probe = element(buttons[0].parentNode, "span", "probe", "x".repeat(100));
      const width = probe.getBoundingClientRect().width / 100;
      probe.remove();
      const room = buttons[0].parentNode.clientWidth - 14;
      state.fits = Math.max(8, Math.floor(room / (width || 8)));
    };
    const fill = (row, at) => {
      const [name, cells] = holder.kernels[state.rows[at]];
      row.setAttribute("aria-rowindex", String(at + 2));
      row.firstChild.title = name;
      row.firstChild.textContent = middled(name, state.rows[at]);
      cells.forEach((cell, index) => {
        const [text, kind] = FILES ? fileCell(cell) : DIFF ? diffCell(cell, state.metric) : plainCell(cell, state.metric, shade);
        const box = row.children[index + 1];
        box.textContent = text;
        box.className = kind;
        if (FILES) box.dataset.mark = cell === null ? "·" : MARKS[gradeOf(cell)];
        box.title = holder.targets[index] + "\n" + tip(cell);
      });
    };
    const draw = (first, last) => {
      if (first === undefined) {
        first = Math.max(0, Math.floor(heat.scrollTop / ROW) - AHEAD);
        last = Math.min(state.rows.length, Math.ceil((heat.scrollTop + Math.max(heat.clientHeight, innerHeight)) / ROW));
      }
      while (pool.length < last - first) {
        const row = document.createElement("tr");
        element(row, "th", "name").scope = "row";
        holder.targets.forEach(() => element(row, "td"));
        pool.push(row);
      }
      top.style.height = first * ROW + "px";
      bottom.style.height = (state.rows.length - last) * ROW + "px";
      const shown = pool.slice(0, last - first);
      shown.forEach((row, index) => fill(row, first + index));
      if (body.children.length !== shown.length + 2) body.replaceChildren(top.parentNode, ...shown, bottom.parentNode);
    };
    const sortBy = (column) => {
      state.down = state.sort === column ? !state.down : column >= 0;
      state.sort = column;
      buttons.forEach((button, index) => {
        button.parentNode.setAttribute("aria-sort", index - 1 !== column ? "none" : state.down ? "descending" : "ascending");
        button.textContent = button.dataset.name + (index - 1 !== column ? "" : state.down ? " ▾" : " ▴");
      });
      choose();
    };
    const build = () => {
      pool.length = 0;
      heat.replaceChildren();
      table = element(heat, "table");
      const head = element(element(table, "thead"), "tr");
      body = element(table, "tbody");
      buttons = [FILES ? "library" : "kernel", ...holder.targets].map((name, index) => {
        const cell = element(head, "th", index ? "" : "name");
        cell.scope = "col";
        const button = element(cell, "button", "", name);
        button.type = "button";
        button.dataset.name = name;
        button.title = "Sort by " + name;
        button.addEventListener("click", () => sortBy(index - 1));
        return button;
      });
      [top, bottom] = [0, 1].map(() => {
        const row = document.createElement("tr");
        row.setAttribute("aria-hidden", "true");
        const cell = element(row, "td", "spacer");
        cell.colSpan = holder.targets.length + 1;
        return cell;
      });
      body.append(top.parentNode, bottom.parentNode);
      table.style.width = "max(100%, calc(var(--name) + " + holder.targets.length + " * var(--cell)))";
      wide();
      state.prefix = beginning();
      byId("legend").textContent = meaning + (state.prefix ? " All names begin with " + state.prefix : "");
      measure();
      lower = holder.kernels.map(([name]) => name.toLowerCase());
      scale();
      state.sort = -2;
      sortBy(-1);
    };

    let waiting = false;
    heat.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        draw();
      });
    }, {passive: true});
    byId("filter").addEventListener("input", choose);
    byId("only").addEventListener("change", choose);
    byId("metric").addEventListener("change", (event) => {
      state.metric = Number(event.target.value);
      scale();
      choose();
    });
    addEventListener("resize", () => {
      measure();
      draw();
    });
    addEventListener("beforeprint", () => {
      const last = Math.min(PRINTED, state.rows.length);
      document.querySelectorAll("details").forEach((part) => {
        part.dataset.open = part.open ? "1" : "";
        part.open = true;
      });
      draw(0, last);
      bottom.style.height = "0";
      byId("legend").dataset.words = byId("legend").textContent;
      byId("legend").textContent += " Printed: the first " + last + " of " + state.rows.length + (FILES ? " libraries of the " : " kernels of ") + holder.name + ".";
    });
    addEventListener("afterprint", () => {
      byId("legend").textContent = byId("legend").dataset.words;
      document.querySelectorAll("details").forEach((part) => {
        part.open = part.dataset.open === "1";
      });
      draw();
    });
    return build;
  }

  // Squarified treemap (Bruls, Huizing, van Wijk): rows of boxes as square as can be.
  function squarified(items, x, y, width, height) {
    const total = items.reduce((sum, item) => sum + item.size, 0);
    if (!total || width <= 0 || height <= 0) return [];
    const factor = width * height / total, boxes = [];
    const worst = (row, sum, side) => Math.max(side * side * row[0] / (sum * sum), sum * sum / (side * side * row[row.length - 1]));
    let at = 0;
    while (at < items.length) {
      const side = Math.min(width, height), row = [];
      let sum = 0;
      while (at + row.length < items.length) {
        const area = items[at + row.length].size * factor;
        if (row.length && worst(row, sum, side) < worst([...row, area], sum + area, side)) break;
        row.push(area);
        sum += area;
      }
      const depth = sum / side;
      let along = 0;
      row.forEach((area, index) => {
        const length = area / depth;
        boxes.push(width <= height ? [items[at + index], x + along, y, length, depth] : [items[at + index], x, y + along, depth, length]);
        along += length;
      });
      if (width <= height) [y, height] = [y + depth, height - depth];
      else [x, width] = [x + depth, width - depth];
      at += row.length;
    }
    return boxes;
  }

  function treemap() {
    const map = byId("map");
    if (!map) return;
    let inside = null, groups = [];
    const few = (sizes) => {
      const items = [...sizes].map(([name, size]) => ({name, size})).filter((item) => item.size > 0).sort((a, b) => b.size - a.size);
      if (items.length <= MOST_BOXES) return items;
      const rest = items.splice(MOST_BOXES);
      items.push({name: rest.length + " others", size: rest.reduce((sum, item) => sum + item.size, 0)});
      return items;
    };
    const collect = () => {
      const [outer, inner] = byId("split").value.split("-");
      const byFamily = outer === "family" || inner === "family";
      const names = byFamily ? holder.families : holder.modules;
      const found = new Map();
      for (const [name, target, size] of byFamily ? holder.code : holder.stored) {
        const pair = outer === "target" ? [holder.targets[target], names[name]] : [names[name], holder.targets[target]];
        if (!found.has(pair[0])) found.set(pair[0], new Map());
        const sizes = found.get(pair[0]);
        sizes.set(pair[1], (sizes.get(pair[1]) || 0) + size);
      }
      const totals = new Map([...found].map(([name, sizes]) => [name, [...sizes.values()].reduce((a, b) => a + b, 0)]));
      groups = few(totals).map((group) => ({...group, items: found.has(group.name) ? few(found.get(group.name)) : [{name: group.name, size: group.size}]}));
    };
    const shape = (parent, name, attributes, text) => {
      const made = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      if (text !== undefined) made.textContent = text;
      parent.append(made);
      return made;
    };
    const label = (parent, x, y, width, text, kind) => {
      const room = Math.floor((width - 8) / 7), number = /^\w+(\[\d+\]) ?(.*)$/.exec(text);
      if (text.length > room && number) text = number[2].length && number[2].length <= room ? number[2] : number[1];
      if (room >= 3) shape(parent, "text", {x: x + 4, y: y + 14, class: kind}, text.length > room ? text.slice(0, room - 1) + "…" : text);
    };
    const go = (group) => {
      inside = group;
      draw();
      if (group === null) map.querySelector("g[tabindex]")?.focus();
      else byId("out").focus();
    };
    const draw = () => {
      const width = map.clientWidth, height = map.clientHeight;
      map.setAttribute("viewBox", `0 0 ${width} ${height}`);
      map.replaceChildren();
      byId("out").hidden = inside === null;
      const shown = inside === null ? groups : groups.filter((group) => group.name === inside);
      const total = shown.reduce((sum, group) => sum + group.size, 0);
      byId("map-title").textContent = (inside === null ? "" : inside + ": ") + bytes(total);
      squarified(shown, 0, 0, width, height).forEach(([group, x, y, w, h]) => {
        if (w * h < LEAST_AREA) return;
        const words = group.name + ": " + bytes(group.size);
        const part = shape(map, "g", {tabindex: 0, role: "button", "aria-label": words});
        const titled = w > 50 && h > 34;
        const index = groups.indexOf(group) % 8;
        squarified(group.items, x + 1, y + (titled ? 18 : 1), w - 2, h - (titled ? 19 : 2)).forEach(([item, left, up, wide, tall]) => {
          if (wide * tall < LEAST_AREA) return;
          const box = shape(part, "rect", {x: left, y: up, width: wide, height: tall, class: "box t" + index});
          shape(box, "title", {}, group.name + "\n" + item.name + ": " + bytes(item.size));
          if (tall > 16) label(part, left, up, wide, item.name, "");
        });
        if (titled) label(part, x, y, w, words, "title outer");
        shape(part, "rect", {x: x + .5, y: y + .5, width: Math.max(0, w - 1), height: Math.max(0, h - 1), class: "frame"});
        part.addEventListener("click", () => go(inside === null ? group.name : null));
        part.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            go(inside === null ? group.name : null);
          }
        });
      });
    };
    byId("bytes").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && inside !== null) go(null);
    });
    byId("out").addEventListener("click", () => go(null));
    byId("split").addEventListener("change", () => {
      inside = null;
      collect();
      draw();
    });
    addEventListener("resize", draw);
    return () => {
      inside = null;
      collect();
      draw();
    };
  }

  const parts = holder ? [heatmap(), treemap()].filter(Boolean) : [];
  const show = () => parts.forEach((part) => part());
  byId("holder")?.addEventListener("change", (event) => {
    holder = data.holders[Number(event.target.value)];
    show();
  });
  show();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
