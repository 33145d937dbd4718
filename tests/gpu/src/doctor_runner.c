/* doctor_runner LIBRARY KERNEL[:N]...   Calls run_KERNEL of a shared object, one after the other; one line of JSON each, at once. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct answer {
    int setup, launch, sync, copy, mark, kernel;
};

int main(int count, char **words) {
    if (count < 3) return 2;
    void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "dlopen: %s\n", dlerror());
        return 3;
    }
    for (int i = 2; i < count; i++) {
        char name[200];
        char *colon = strchr(words[i], ':');
        int n = colon ? atoi(colon + 1) : 0;
        snprintf(name, sizeof name, "run_%.*s", (int)(colon ? colon - words[i] : (long)strlen(words[i])), words[i]);
        void (*run)(int, struct answer *) = (void (*)(int, struct answer *))dlsym(library, name);
        if (!run) {
            fprintf(stderr, "dlsym: %s\n", dlerror());
            return 4;
        }
        struct answer a;
        run(n, &a);
        printf("\n@{\"call\": \"%s\", \"setup\": %d, \"launch\": %d, \"sync\": %d, \"copy\": %d, \"mark\": %d, \"kernel\": %d}\n", words[i],
               a.setup, a.launch, a.sync, a.copy, a.mark, a.kernel);
        fflush(stdout);
    }
    return 0;
}
