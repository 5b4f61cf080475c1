/* A libcuda.so.1 without hardware. What it answers comes from the environment:
 *
 *   STUB_CUDA_DEVICES="<32 hex digits> <bytes> <name>;..."   in the order of the ordinals
 *   STUB_CUDA_INIT=<code>       what cuInit answers
 *   STUB_CUDA_MOOD=hang|crash|babble   cuInit never comes back, aborts, or prints and leaves with status 0
 *   STUB_CUDA_SAY=<line>        what babble prints; other moods print it too and carry on
 *   STUB_CUDA_FAIL="<function>=<code> ..."   of those that use the device; -1: it never comes back, -2: it aborts
 *   STUB_CUDA_FORGETS=1         memory does not hold what is written to it
 *
 * It knows nothing of CUDA_VISIBLE_DEVICES: a test says what CUDA would show.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_DEVICE = 101, NO_DEVICE = 100 };

static int is_mood(const char *wanted) {
    const char *mood = getenv("STUB_CUDA_MOOD");
    return mood && !strcmp(mood, wanted);
}

static const char *entry(int ordinal) {
    const char *at = getenv("STUB_CUDA_DEVICES");
    for (; ordinal && at; ordinal--) {
        at = strchr(at, ';');
        if (at) at++;
    }
    return at && *at ? at : NULL;
}

int cuInit(unsigned flags) {
    (void)flags;
    if (getenv("STUB_CUDA_SAY")) {
        puts(getenv("STUB_CUDA_SAY"));
        fflush(stdout);
    }
    while (is_mood("hang")) pause();
    if (is_mood("crash")) abort();
    if (is_mood("babble")) _exit(0);
    const char *code = getenv("STUB_CUDA_INIT");
    return code ? atoi(code) : entry(0) ? SUCCESS : NO_DEVICE;
}

int cuDeviceGetCount(int *count) {
    for (*count = 0; entry(*count); ++*count) {}
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return entry(ordinal) ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    const char *digits = entry(device);
    for (int i = 0; i < 16; i++)
        if (sscanf(digits + 2 * i, "%2hhx", uuid + i) != 1) return INVALID_DEVICE;
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    return sscanf(entry(device), "%*s %zu", bytes) == 1 ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int size, int device) {
    char found[256];
    if (sscanf(entry(device), "%*s %*s %255[^;]", found) != 1 || (int)strlen(found) >= size) return INVALID_DEVICE;
    strcpy(name, found);
    return SUCCESS;
}

/* Using the device: its memory is that of the machine. */

static int failure(const char *function) {
    const char *fail = getenv("STUB_CUDA_FAIL");
    const char *found = fail ? strstr(fail, function) : NULL;
    int code = found ? atoi(found + strlen(function) + 1) : SUCCESS;
    while (code == -1) pause();
    if (code == -2) abort();
    return code;
}

int cuGetErrorString(int code, const char **words) {
    *words = code == 999 ? "unknown error" : "some error";
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &failure;
    (void)device;
    return failure("cuDevicePrimaryCtxRetain");
}

int cuCtxSetCurrent(void *context) { return context ? failure("cuCtxSetCurrent") : INVALID_DEVICE; }

int cuMemAlloc_v2(void **memory, size_t size) {
    *memory = malloc(size);
    return failure("cuMemAlloc_v2");
}

int cuMemsetD8_v2(void *memory, unsigned char value, size_t size) {
    memset(memory, getenv("STUB_CUDA_FORGETS") ? 0 : value, size);
    return failure("cuMemsetD8_v2");
}

int cuCtxSynchronize(void) { return failure("cuCtxSynchronize"); }

int cuMemcpyDtoH_v2(void *to, void *from, size_t size) {
    memcpy(to, from, size);
    return failure("cuMemcpyDtoH_v2");
}

int cuMemFree_v2(void *memory) {
    free(memory);
    return failure("cuMemFree_v2");
}
