/* fuzz/replay.c - runs a fuzz target once over every file of a corpus folder, without libFuzzer.
 *
 * So that inputs that once failed are part of every test run, under any compiler and sanitizer. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum { MAX_INPUT_BYTES = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static bool run_file(const char *folder, const char *name)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = len < (int)sizeof path ? fopen(path, "rb") : NULL;
    if (f == NULL) {
        fprintf(stderr, "replay: cannot open %s/%s\n", folder, name);
        return false;
    }
    uint8_t *bytes = cmi_alloc(1, MAX_INPUT_BYTES);
    size_t n = fread(bytes, 1, MAX_INPUT_BYTES, f);
    fclose(f);
    uint8_t *exact = cmi_alloc(n, 1); /* so that a sanitizer sees a read past the end */
    memcpy(exact, bytes, n);
    cmi_free(bytes);
    fprintf(stderr, "replay: %s (%zu bytes)\n", name, n); /* the last line names a crash's input */
    LLVMFuzzerTestOneInput(exact, n);
    cmi_free(exact);
    return true;
}

int main(int argc, char **argv)
{
    DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    if (dir == NULL) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    size_t n_files = 0;
    bool ok = true;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] != '.') {
            ok = run_file(argv[1], entry->d_name) && ok;
            n_files++;
        }
    }
    closedir(dir);
    if (n_files == 0) {
        fprintf(stderr, "replay: %s holds no inputs\n", argv[1]);
        return 1;
    }
    return ok ? 0 : 1;
}
