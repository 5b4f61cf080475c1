/* A libnvidia-ml.so.1 without hardware. What it answers comes from the environment:
 *
 *   STUB_NVML_INIT=<code>        what nvmlInit answers
 *   STUB_NVML_HANG=<function>    init or handle: that call never comes back
 *   STUB_NVML_DRIVER=<version>
 *   STUB_GPUS=<count>
 *   STUB_GPU<i>_UUID, _NAME, _PCI, _MEMORY   (bytes; a memory of 0 is what some unified machines report)
 *   STUB_GPU<i>_FAIL="<function>=<code> ..."   handle, uuid, name, pci, memory, memory2, mig, events, fields;
 *                                with the code -1 the call hangs for as long as it is that
 *   STUB_GPU<i>_FREE=<bytes>     of its memory
 *   STUB_GPU<i>_LOAD=<percent>, _TEMPERATURE=<degrees>, _POWER=<milliwatts>, _COMPUTE_MODE=<mode>
 *                                what is not set is not supported
 *   STUB_GPU<i>_FIELDS="<id>=<value> ..."      a value of "!<code>" is an error; fields not named are not supported
 *   STUB_NVML_WAIT=<code>        what waiting for events answers at once
 *   STUB_GPU<i>_MIG="<uuid> <name without blanks> <memory> <gpu instance> <compute instance>;..."
 *                                MIG mode; an entry "-" is a gap in the numbering, "!<code>" a slice that fails
 *
 * The environment is read at each call, so a test may change it while NVML runs; stub_event() puts an event in.
 * Layouts and codes are those of nvml.h.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMED_OUT = 10 };
enum { MOST_GPUS = 16, MOST_SLICES = 7 };

typedef struct { int gpu, slice; } device; /* slice -1: the whole GPU */
typedef struct { char uuid[96], name[96]; unsigned long long memory; unsigned gi, ci; } slice;

static device whole[MOST_GPUS], pieces[MOST_GPUS][MOST_SLICES];
static int users; /* nvmlInit is counted */

static const char *setting(int gpu, const char *what) {
    char key[64];
    snprintf(key, sizeof key, "STUB_GPU%d_%s", gpu, what);
    const char *value = getenv(key);
    return value ? value : "";
}

static int failure(int gpu, const char *function) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%s=", function);
    for (;; usleep(1000)) {
        const char *found = strstr(setting(gpu, "FAIL"), wanted);
        int code = found ? atoi(found + strlen(wanted)) : SUCCESS;
        if (code >= 0) return code;
    }
}

static void hang_in(const char *function) {
    const char *wanted = getenv("STUB_NVML_HANG");
    while (wanted && !strcmp(wanted, function)) pause();
}

/* The slice's entry, or an error: NOT_FOUND for a gap and past the end. */
static int read_slice(int gpu, unsigned index, slice *found) {
    const char *entry = setting(gpu, "MIG");
    for (; index && entry; index--) {
        entry = strchr(entry, ';');
        if (entry) entry++;
    }
    if (!entry || !*entry || *entry == '-') return NOT_FOUND;
    if (*entry == '!') return atoi(entry + 1);
    int fields = sscanf(entry, "%95s %95s %llu %u %u", found->uuid, found->name, &found->memory, &found->gi, &found->ci);
    return fields == 5 ? SUCCESS : INVALID_ARGUMENT;
}

static int text(char *to, unsigned size, const char *from) {
    if (strlen(from) >= size) return INVALID_ARGUMENT;
    strcpy(to, from);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    hang_in("init");
    const char *code = getenv("STUB_NVML_INIT");
    if (code && atoi(code)) return atoi(code);
    for (int gpu = 0; gpu < MOST_GPUS; gpu++) {
        whole[gpu] = (device){gpu, -1};
        for (int i = 0; i < MOST_SLICES; i++) pieces[gpu][i] = (device){gpu, i};
    }
    users++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) { return code == 999 ? "Unknown Error" : "some error"; }

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    const char *set = getenv("STUB_NVML_DRIVER");
    return set ? text(version, size, set) : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!users) return UNINITIALIZED;
    const char *set = getenv("STUB_GPUS");
    *count = set ? atoi(set) : 0;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **handle) {
    hang_in("handle");
    *handle = &whole[index];
    return failure(index, "handle");
}

int nvmlDeviceGetUUID(device *of, char *uuid, unsigned size) {
    slice piece;
    if (of->slice < 0) return failure(of->gpu, "uuid") ? failure(of->gpu, "uuid") : text(uuid, size, setting(of->gpu, "UUID"));
    int code = read_slice(of->gpu, of->slice, &piece);
    return code ? code : text(uuid, size, piece.uuid);
}

int nvmlDeviceGetName(device *of, char *name, unsigned size) {
    slice piece;
    if (of->slice < 0) return failure(of->gpu, "name") ? failure(of->gpu, "name") : text(name, size, setting(of->gpu, "NAME"));
    int code = read_slice(of->gpu, of->slice, &piece);
    return code ? code : text(name, size, piece.name);
}

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci;

int nvmlDeviceGetPciInfo_v3(device *of, pci *to) {
    memset(to, 0, sizeof *to);
    text(to->bus_id, sizeof to->bus_id, setting(of->gpu, "PCI"));
    return failure(of->gpu, "pci");
}

static int total_memory(device *of, unsigned long long *total, const char *function) {
    slice piece;
    if (of->slice < 0) {
        *total = strtoull(setting(of->gpu, "MEMORY"), NULL, 10);
        return failure(of->gpu, function);
    }
    int code = read_slice(of->gpu, of->slice, &piece);
    *total = piece.memory;
    return code;
}

static unsigned long long free_memory(device *of, unsigned long long total) {
    return *setting(of->gpu, "FREE") ? strtoull(setting(of->gpu, "FREE"), NULL, 10) : total;
}

typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory2;

int nvmlDeviceGetMemoryInfo(device *of, memory *to) {
    int code = users ? total_memory(of, &to->total, "memory") : UNINITIALIZED;
    to->free = free_memory(of, to->total);
    to->used = to->total - to->free;
    return code;
}

int nvmlDeviceGetMemoryInfo_v2(device *of, memory2 *to) {
    if (to->version != 0x02000028) return 25; /* ARGUMENT_VERSION_MISMATCH */
    return total_memory(of, &to->total, "memory2");
}

/* What is read of a whole GPU, and not of a slice. */
static int reading(device *of, const char *what, unsigned *value) {
    if (of->slice >= 0) return INVALID_ARGUMENT;
    if (!*setting(of->gpu, what)) return NOT_SUPPORTED;
    *value = strtoul(setting(of->gpu, what), NULL, 10);
    return SUCCESS;
}

typedef struct { unsigned gpu, memory; } utilization;

int nvmlDeviceGetUtilizationRates(device *of, utilization *to) {
    to->memory = 0;
    return reading(of, "LOAD", &to->gpu);
}

int nvmlDeviceGetTemperature(device *of, unsigned sensor, unsigned *degrees) {
    return sensor ? INVALID_ARGUMENT : reading(of, "TEMPERATURE", degrees);
}

int nvmlDeviceGetPowerUsage(device *of, unsigned *milliwatts) { return reading(of, "POWER", milliwatts); }

int nvmlDeviceGetComputeMode(device *of, unsigned *mode) { return reading(of, "COMPUTE_MODE", mode); }

int nvmlDeviceGetMigMode(device *of, unsigned *current, unsigned *pending) {
    if (failure(of->gpu, "mig")) return failure(of->gpu, "mig");
    char key[64];
    snprintf(key, sizeof key, "STUB_GPU%d_MIG", of->gpu);
    if (!getenv(key)) return NOT_SUPPORTED;
    *current = *pending = 1;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device *of, unsigned *count) {
    (void)of;
    *count = MOST_SLICES;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *of, unsigned index, device **handle) {
    slice piece;
    *handle = &pieces[of->gpu][index];
    return read_slice(of->gpu, index, &piece);
}

int nvmlDeviceGetGpuInstanceId(device *of, unsigned *id) {
    slice piece;
    int code = read_slice(of->gpu, of->slice, &piece);
    *id = piece.gi;
    return code;
}

int nvmlDeviceGetComputeInstanceId(device *of, unsigned *id) {
    slice piece;
    int code = read_slice(of->gpu, of->slice, &piece);
    *id = piece.ci;
    return code;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **handle) {
    if (!users) return UNINITIALIZED;
    slice piece;
    const char *count = getenv("STUB_GPUS");
    for (int gpu = 0; count && gpu < atoi(count); gpu++) {
        *handle = &whole[gpu];
        if (!strcmp(uuid, setting(gpu, "UUID"))) return failure(gpu, "handle");
        for (int i = 0; i < MOST_SLICES; i++) {
            *handle = &pieces[gpu][i];
            if (read_slice(gpu, i, &piece) == SUCCESS && !strcmp(uuid, piece.uuid)) return failure(gpu, "handle");
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device *of, device **handle) {
    *handle = &whole[of->gpu];
    return SUCCESS;
}

typedef struct {
    unsigned id, scope;
    long long at, latency;
    unsigned type, code;
    union { double real; unsigned number; unsigned long long wide; } value;
} field;

int nvmlDeviceGetFieldValues(device *of, int count, field *fields) {
    int code = failure(of->gpu, "fields");
    if (code) return code;
    for (field *each = fields; each < fields + count; each++) {
        char wanted[16];
        snprintf(wanted, sizeof wanted, "%u=", each->id);
        const char *found = strstr(setting(of->gpu, "FIELDS"), wanted);
        const char *value = found ? found + strlen(wanted) : "!3";
        each->type = 1; /* unsigned int */
        each->code = *value == '!' ? atoi(value + 1) : SUCCESS;
        each->value.number = *value == '!' ? 0 : atoi(value);
    }
    return SUCCESS;
}

/* Events: one queue for each set. */

typedef struct { device *of; unsigned long long type, data; unsigned gi, ci; } event;
typedef struct set { unsigned long long wanted[MOST_GPUS]; event events[64]; int first, last; struct set *next; } set;

static set *sets;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t happened = PTHREAD_COND_INITIALIZER;

int nvmlEventSetCreate(set **made) {
    if (!users) return UNINITIALIZED;
    pthread_mutex_lock(&guard);
    *made = calloc(1, sizeof **made);
    (*made)->next = sets;
    sets = *made;
    pthread_mutex_unlock(&guard);
    return SUCCESS;
}

int nvmlEventSetFree(set *old) {
    pthread_mutex_lock(&guard);
    for (set **at = &sets; *at; at = &(*at)->next)
        if (*at == old) {
            *at = old->next;
            break;
        }
    pthread_mutex_unlock(&guard);
    free(old);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(device *of, unsigned long long *types) {
    *types = 0x8 | 0x8000; /* XIDs, recovery action; more than that is refused below */
    return failure(of->gpu, "events");
}

int nvmlDeviceRegisterEvents(device *of, unsigned long long types, set *to) {
    if (of->slice >= 0 || types & ~0x8008ull) return INVALID_ARGUMENT;
    to->wanted[of->gpu] |= types;
    return SUCCESS;
}

int nvmlEventSetWait_v2(set *from, event *to, unsigned milliseconds) {
    if (!users) return UNINITIALIZED;
    const char *code = getenv("STUB_NVML_WAIT");
    if (code && atoi(code)) return atoi(code);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += milliseconds % 1000 * 1000000l;
    until.tv_sec += milliseconds / 1000 + until.tv_nsec / 1000000000l;
    until.tv_nsec %= 1000000000l;
    pthread_mutex_lock(&guard);
    int late = 0;
    while (from->first == from->last && !late) late = pthread_cond_timedwait(&happened, &guard, &until) == ETIMEDOUT;
    if (!late) *to = from->events[from->first++ % 64];
    pthread_mutex_unlock(&guard);
    return late ? TIMED_OUT : SUCCESS;
}

/* How many sets have got it. */
int stub_event(int gpu, unsigned long long type, unsigned long long data, unsigned gi, unsigned ci) {
    int heard = 0;
    pthread_mutex_lock(&guard);
    for (set *each = sets; each; each = each->next)
        if (each->wanted[gpu] & type) {
            each->events[each->last++ % 64] = (event){&whole[gpu], type, data, gi, ci};
            heard++;
        }
    pthread_cond_broadcast(&happened);
    pthread_mutex_unlock(&guard);
    return heard;
}

/* What a reset of a GPU does to those who listen to it. */
void stub_forget(int gpu) {
    pthread_mutex_lock(&guard);
    for (set *each = sets; each; each = each->next) each->wanted[gpu] = 0;
    pthread_mutex_unlock(&guard);
}
