/* Stands in for ROCm's runtime in a process that loads a HIP library: writes out what it is asked to register.
   One record a wrapper on stdout: u64 size, then that many bytes from where the wrapper leads. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct wrapper { uint32_t magic, version; const unsigned char *binary; void *unused; };

static uint64_t word(const unsigned char *at) { uint64_t value; memcpy(&value, at, 8); return value; }

static uint64_t reach(const unsigned char *at) {
  if (!memcmp(at, "CCOB", 4)) return at[4] == 3 ? word(at + 8) : (uint32_t)word(at + 8);
  uint64_t end = 32, count = word(at + 24);
  const unsigned char *row = at + 32;
  for (; count; count--) {
    if (word(row) + word(row + 8) > end) end = word(row) + word(row + 8);
    row += 24 + word(row + 16);
  }
  return end;
}

void **__hipRegisterFatBinary(const struct wrapper *found) {
  if (found->magic == 0x48495046 && found->version == 1) {
    uint64_t size = reach(found->binary), misplaced = (uintptr_t)found->binary % 4096;
    if (misplaced) size = 0;
    fwrite(&size, 8, 1, stdout);
    fwrite(found->binary, 1, size, stdout);
  }
  return (void **)&__hipRegisterFatBinary;
}

int main(int count, char **arguments) {
  for (int index = 1; index < count; index++)
    if (!dlopen(arguments[index], RTLD_NOW)) { fprintf(stderr, "%s\n", dlerror()); return 1; }
  return fflush(stdout);
}
