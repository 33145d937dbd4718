/* Runs run_a and run_b of a shared object, or, built with -DLINKED, those linked in; prints one line. */
#include <dlfcn.h>
#include <stdio.h>

#ifdef LINKED
int run_a(void);
int run_b(void);
#endif

int main(int count, char **words) {
#ifdef LINKED
    (void)count, (void)words;
#else
    if (count != 2) return 2;
    void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("dlopen: %s\n", dlerror());
        return 1;
    }
    int (*run_a)(void) = (int (*)(void))dlsym(library, "run_a");
    int (*run_b)(void) = (int (*)(void))dlsym(library, "run_b");
    if (!run_a || !run_b) {
        printf("dlsym: %s\n", dlerror());
        return 1;
    }
#endif
    int a = run_a(), b = run_b();
    printf("run_a=%d run_b=%d\n", a, b);
    return 0;
}
