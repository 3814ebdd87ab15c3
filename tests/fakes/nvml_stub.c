/* A fake libnvidia-ml.so.1: NVML's functions in C, so that real processes load it, ask it and hang
 * in it. Structs are those of nvml.h. The machine is a file of lines named by FLEETMAP_FAKE_NVML:
 *
 *     KEY \t RETURN CODE \t WORD \t WORD ...
 *
 * where keys are those of nvml_table.py and a word is a decimal number or x and hexadecimal bytes.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_NOT_FOUND = 28,
    VERSION_MISMATCH = 25
};
#define MOST_DEVICES 256
#define MOST_KEY 96
#define VERSION_BYTES 0xFFFFFFu

typedef unsigned long long U64;
typedef unsigned char U8;
typedef struct { char *key, *answer; } Line;
typedef struct { int code; const char *words; } Answer;
typedef struct { char name[16]; unsigned long calls; } Device;

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, identity, subsystem;
    char address[32];
} Pci;
typedef struct { Pci pci; char uuid[80]; } Excluded;
typedef struct { U64 total, free, used; } Memory;
typedef struct { unsigned version; U64 total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned version, sensor; int celsius; } Temperature;
typedef struct { unsigned pid; U64 bytes; unsigned gpu, compute; } Process;
typedef struct { unsigned pid; U64 at_us; unsigned sm, memory, encoder, decoder; } Sample;
typedef struct {
    unsigned number, scope;
    long long timestamp, latency_us;
    unsigned type, code;
    union { unsigned ui; U64 ull; } value;
} FieldValue;
typedef struct { U8 cluster[16]; unsigned status, clique; U8 state; } Fabric;
typedef struct {
    unsigned version;
    U8 cluster[16];
    unsigned status, clique;
    U8 state;
    unsigned health_mask;
    U8 health_summary;
} FabricV;
typedef struct {
    unsigned version;
    U8 ib_guid[16], chassis_serial[16], slot, tray, host, peer, module;
} Platform;

static char *text_of_lines;
static Line *lines;
static size_t line_count;
static Device library = {"-", 0}, devices[MOST_DEVICES];
static int running;

/* The machine's file. */

static int by_key(const void *a, const void *b) {
    return strcmp(((const Line *)a)->key, ((const Line *)b)->key);
}

static char *text_of_file(const char *path) {
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file || fseek(file, 0, SEEK_END)) return NULL;
    long size = ftell(file);
    char *text = calloc(1, (size_t)size + 1);
    rewind(file);
    size_t got = text ? fread(text, 1, (size_t)size, file) : 0;
    fclose(file);
    return got == (size_t)size ? text : NULL;
}

static int load(void) {
    free(text_of_lines);
    free(lines);
    size_t most = 1;
    lines = NULL;
    line_count = 0;
    text_of_lines = text_of_file(getenv("FLEETMAP_FAKE_NVML"));
    if (!text_of_lines) return DRIVER_NOT_LOADED;
    for (char *at = text_of_lines; *at; at++) most += *at == '\n';
    lines = calloc(most, sizeof *lines);
    for (char *line = strtok(text_of_lines, "\n"); line && lines; line = strtok(NULL, "\n")) {
        char *tab = strchr(line, '\t');
        if (!tab) continue;
        *tab = 0;
        lines[line_count++] = (Line){line, tab + 1};
    }
    qsort(lines, line_count, sizeof *lines, by_key);
    return SUCCESS;
}

static const char *find(char *key) {
    Line wanted = {key, NULL};
    Line *found = lines ? bsearch(&wanted, lines, line_count, sizeof *lines, by_key) : NULL;
    return found ? found->answer : NULL;
}

static Answer parsed(const char *answer, int missing) {
    if (!answer) return (Answer){missing, ""};
    char *end;
    int code = (int)strtol(answer, &end, 10);
    return (Answer){code, *end ? end + 1 : end};
}

static Answer answer_of(const char *device, const char *symbol) {
    char key[MOST_KEY];
    snprintf(key, sizeof key, "%s %s", device, symbol);
    return parsed(find(key), NOT_SUPPORTED);
}

/* The answer to "DEVICE WHAT LAST", or to "DEVICE WHAT *" where that last word has none. */
static Answer answer_or(const char *device, const char *what, const char *last, int missing) {
    char key[MOST_KEY];
    snprintf(key, sizeof key, "%s %s %s", device, what, last);
    const char *found = find(key);
    snprintf(key, sizeof key, "%s %s *", device, what);
    return parsed(found ? found : find(key), missing);
}

static Answer picked(const char *device, const char *symbol, unsigned pick) {
    char last[16];
    snprintf(last, sizeof last, "%u", pick);
    return answer_or(device, symbol, last, NOT_SUPPORTED);
}

/* Words of an answer. */

static U64 number(const char **words) {
    char *end;
    U64 value = strtoull(*words, &end, 10);
    *words = *end ? end + 1 : end;
    return value;
}

static unsigned digit(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

/* Puts the bytes of a word into the room there is, zeros behind them; gives how many there are. */
static size_t bytes(const char **words, void *room, size_t size) {
    const char *at = *words + (**words == 'x');
    size_t count = 0;
    if (size) memset(room, 0, size);
    for (; *at && *at != '\t'; at += 2, count++)
        if (count < size) ((U8 *)room)[count] = (U8)(digit(at[0]) << 4 | digit(at[1]));
    *words = *at ? at + 1 : at;
    return count;
}

/* One word to each place: u unsigned, i int, l 64 bits, c one byte, s bytes and their room. */
static void take(const char **words, const char *kinds, ...) {
    va_list places;
    va_start(places, kinds);
    for (; *kinds; kinds++) {
        void *place = va_arg(places, void *);
        if (*kinds == 's') bytes(words, place, va_arg(places, size_t));
        else if (*kinds == 'u') *(unsigned *)place = (unsigned)number(words);
        else if (*kinds == 'i') *(int *)place = (int)number(words);
        else if (*kinds == 'l') *(U64 *)place = number(words);
        else *(U8 *)place = (U8)number(words);
    }
    va_end(places);
}

static void take_pci(const char **words, Pci *out) {
    take(words, "suuuuus", out->legacy, sizeof out->legacy, &out->domain, &out->bus, &out->device,
         &out->identity, &out->subsystem, out->address, sizeof out->address);
}

/* Devices and their faults. */

static Device *device_named(const char *name) {
    for (Device *device = devices; device < devices + MOST_DEVICES; device++) {
        if (!*device->name) snprintf(device->name, sizeof device->name, "%s", name);
        if (!strcmp(device->name, name)) return device;
    }
    return NULL;
}

static int has_fault(const Device *device) {
    Answer after = answer_of(device->name, "after");
    return device->calls > number(&after.words);
}

/* As in uninterruptible sleep: no signal ends it but the one that cannot be blocked. */
static void hang(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (;;) pause();
}

/* The code of a fault that keeps a device from answering; may be late or never return. */
static int refusal(Device *device, const char *symbol) {
    device->calls++;
    if (!has_fault(device)) return SUCCESS;
    Answer delay = answer_or(device->name, "delay", symbol, NOT_FOUND);
    U64 us = number(&delay.words);
    nanosleep(&(struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000}, NULL);
    if (!answer_or(device->name, "hang", symbol, NOT_FOUND).code) hang();
    Answer code = answer_or(device->name, "code", symbol, NOT_FOUND);
    return (int)number(&code.words);
}

static int asked(Device *device, const char *symbol) {
    if (!running) return UNINITIALIZED;
    return device ? refusal(device, symbol) : GPU_NOT_FOUND;
}

/* The forms of functions. */

#define ASK(device, answered)              \
    int refused = asked(device, __func__); \
    if (refused) return refused;           \
    Answer answer = answered;              \
    if (answer.code) return answer.code
#define GIVE(device, ...)                                 \
    {                                                     \
        ASK(device, answer_of((device)->name, __func__)); \
        take(&answer.words, __VA_ARGS__);                 \
        return SUCCESS;                                   \
    }
#define GIVE_PICKED(device, pick, ...)                       \
    {                                                        \
        ASK(device, picked((device)->name, __func__, pick)); \
        take(&answer.words, __VA_ARGS__);                    \
        return SUCCESS;                                      \
    }
#define GIVE_VERSION(device, out, ...)                          \
    {                                                           \
        ASK(device, versioned(device, __func__, out->version)); \
        take(&answer.words, __VA_ARGS__);                       \
        return SUCCESS;                                         \
    }
#define NUMBER(symbol) int symbol(Device *device, unsigned *out) GIVE(device, "u", out)
#define SIGNED(symbol) int symbol(Device *device, int *out) GIVE(device, "i", out)
#define WIDE(symbol) int symbol(Device *device, U64 *out) GIVE(device, "l", out)
#define TWO(symbol) int symbol(Device *device, unsigned *a, unsigned *b) GIVE(device, "uu", a, b)
#define OF_LINK(symbol) \
    int symbol(Device *device, unsigned link, unsigned *out) GIVE_PICKED(device, link, "u", out)
#define PROCESSES(symbol)                                       \
    int symbol(Device *device, unsigned *count, Process *out) { \
        ASK(device, answer_of(device->name, __func__));         \
        return processes(answer, count, out);                   \
    }
#define MASK(symbol)                                                      \
    int symbol(Device *device, unsigned room, U64 *out, unsigned scope) { \
        (void)scope;                                                      \
        ASK(device, answer_of(device->name, __func__));                   \
        return mask(answer, room, out);                                   \
    }
#define OF_SYSTEM(symbol) int symbol(unsigned *out) GIVE(&library, "u", out)
#define TEXT(symbol)                                            \
    int symbol(Device *device, char *buffer, unsigned length) { \
        return text(device, #symbol, buffer, length);           \
    }
#define TEXT_OF_SYSTEM(symbol) \
    int symbol(char *buffer, unsigned length) { return text(&library, #symbol, buffer, length); }

static Answer versioned(Device *device, const char *symbol, unsigned version) {
    Answer versions = answer_or("-", "versions", symbol, NOT_FOUND);
    while (*versions.words)
        if (number(&versions.words) == version) return answer_of(device->name, symbol);
    return (Answer){VERSION_MISMATCH, ""};
}

static int text(Device *device, const char *symbol, char *buffer, unsigned length) {
    int refused = asked(device, symbol);
    if (refused) return refused;
    Answer answer = answer_of(device->name, symbol);
    Answer bad = answer_or(device->name, "undecodable", symbol, NOT_FOUND);
    if (answer.code) return answer.code;
    if (!bad.code && has_fault(device)) answer = bad;
    const char *measured = answer.words;
    if (bytes(&measured, NULL, 0) + 1 > length) return INSUFFICIENT_SIZE;
    bytes(&answer.words, buffer, length);
    return SUCCESS;
}

static int handle(Answer answer, Device **out) {
    char name[16];
    if (answer.code) return answer.code;
    bytes(&answer.words, name, sizeof name);
    *out = device_named(name);
    return *out ? SUCCESS : GPU_NOT_FOUND;
}

static int mask(Answer answer, unsigned room, U64 *out) {
    for (unsigned i = 0; i < room; i++) out[i] = number(&answer.words);
    return *answer.words ? INSUFFICIENT_SIZE : SUCCESS;
}

static int processes(Answer answer, unsigned *count, Process *out) {
    unsigned room = *count, found = 0;
    for (; *answer.words; found++) {
        Process one = {0};
        take(&answer.words, "uluu", &one.pid, &one.bytes, &one.gpu, &one.compute);
        if (found < room) out[found] = one;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

static int of_pair(Device *a, Device *b, const char *symbol, char key[MOST_KEY]) {
    int refused = asked(a, symbol), other = asked(b, symbol);
    if (refused || other) return refused ? refused : other;
    int in_order = strtod(a->name, NULL) <= strtod(b->name, NULL);
    snprintf(key, MOST_KEY, "%s+%s", (in_order ? a : b)->name, (in_order ? b : a)->name);
    return SUCCESS;
}

/* The functions. */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int code = running ? SUCCESS : load();
    if (!code) code = refusal(&library, __func__);
    running += code == SUCCESS;
    return code;
}

int nvmlShutdown(void) {
    int refused = asked(&library, __func__);
    if (!refused) running--;
    return refused;
}

const char *nvmlErrorString(int code) {
    static char words[32];
    snprintf(words, sizeof words, "code %d", code);
    return words;
}

TEXT_OF_SYSTEM(nvmlSystemGetDriverVersion)
TEXT_OF_SYSTEM(nvmlSystemGetNVMLVersion)
OF_SYSTEM(nvmlSystemGetCudaDriverVersion)
OF_SYSTEM(nvmlSystemGetCudaDriverVersion_v2)
OF_SYSTEM(nvmlDeviceGetCount_v2)
OF_SYSTEM(nvmlGetExcludedDeviceCount)

int nvmlGetExcludedDeviceInfoByIndex(unsigned index, Excluded *out) {
    ASK(&library, picked("-", __func__, index));
    take_pci(&answer.words, &out->pci);
    bytes(&answer.words, out->uuid, sizeof out->uuid);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    ASK(&library, picked("-", __func__, index));
    Device *found;
    int code = handle(answer, &found);
    if (!code) code = refusal(found, __func__);
    if (!code) *out = found;
    return code;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **out) {
    ASK(device, picked(device->name, __func__, index));
    return handle(answer, out);
}

TEXT(nvmlDeviceGetName)
TEXT(nvmlDeviceGetUUID)
TEXT(nvmlDeviceGetSerial)
TEXT(nvmlDeviceGetBoardPartNumber)
TEXT(nvmlDeviceGetVbiosVersion)
NUMBER(nvmlDeviceGetIndex)
NUMBER(nvmlDeviceGetModuleId)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth)
NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration)
NUMBER(nvmlDeviceGetPcieReplayCounter)
TWO(nvmlDeviceGetCudaComputeCapability)
SIGNED(nvmlDeviceGetNumaNodeId)
NUMBER(nvmlDeviceGetComputeMode)
NUMBER(nvmlDeviceGetPersistenceMode)
TWO(nvmlDeviceGetMigMode)
NUMBER(nvmlDeviceGetMaxMigDeviceCount)
NUMBER(nvmlDeviceGetGpuInstanceId)
NUMBER(nvmlDeviceGetComputeInstanceId)
NUMBER(nvmlDeviceGetPowerUsage)
NUMBER(nvmlDeviceGetEnforcedPowerLimit)
TWO(nvmlDeviceGetEncoderUtilization)
TWO(nvmlDeviceGetDecoderUtilization)
NUMBER(nvmlDeviceGetFanSpeed)
NUMBER(nvmlDeviceGetPowerManagementLimit)
NUMBER(nvmlDeviceGetPerformanceState)
NUMBER(nvmlDeviceGetDisplayActive)
WIDE(nvmlDeviceGetCurrentClocksEventReasons)
WIDE(nvmlDeviceGetCurrentClocksThrottleReasons)
TWO(nvmlDeviceGetEccMode)
OF_LINK(nvmlDeviceGetNvLinkState)
OF_LINK(nvmlDeviceGetNvLinkVersion)
OF_LINK(nvmlDeviceGetNvLinkRemoteDeviceType)

int nvmlDeviceGetPciInfo_v3(Device *device, Pci *out) {
    ASK(device, answer_of(device->name, __func__));
    take_pci(&answer.words, out);
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *device, unsigned link, Pci *out) {
    ASK(device, picked(device->name, __func__, link));
    take_pci(&answer.words, out);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *out)
GIVE(device, "lll", &out->total, &out->free, &out->used)

int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *out)
GIVE_VERSION(device, out, "llll", &out->total, &out->reserved, &out->free, &out->used)

MASK(nvmlDeviceGetMemoryAffinity)
MASK(nvmlDeviceGetCpuAffinityWithinScope)

int nvmlDeviceGetCpuAffinity(Device *device, unsigned room, U64 *out) {
    ASK(device, answer_of(device->name, __func__));
    return mask(answer, room, out);
}

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)

int nvmlDeviceGetProcessUtilization(Device *device, Sample *out, unsigned *count, U64 since_us) {
    ASK(device, answer_of(device->name, __func__));
    unsigned room = *count, found = 0;
    while (*answer.words) {
        Sample one = {0};
        take(&answer.words, "uluuuu", &one.pid, &one.at_us, &one.sm, &one.memory, &one.encoder,
             &one.decoder);
        if (one.at_us > since_us && found++ < room) out[found - 1] = one;
    }
    if (!found) return NOT_FOUND;
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *out)
GIVE(device, "uu", &out->gpu, &out->memory)

int nvmlDeviceGetTemperature(Device *device, unsigned sensor, unsigned *out)
GIVE_PICKED(device, sensor, "u", out)

int nvmlDeviceGetTemperatureV(Device *device, Temperature *out)
GIVE_VERSION(device, out, "ui", &out->sensor, &out->celsius)

int nvmlDeviceGetTotalEccErrors(Device *device, unsigned kind, unsigned period, U64 *out) {
    char symbol[MOST_KEY];
    snprintf(symbol, sizeof symbol, "%s %u", __func__, kind);
    ASK(device, picked(device->name, symbol, period));
    *out = number(&answer.words);
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(Device *device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed)
GIVE(device, "uuuu", corrected, uncorrected, pending, failed)

int nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *fields) {
    int refused = asked(device, __func__);
    for (FieldValue *field = fields; !refused && field < fields + count; field++) {
        char symbol[MOST_KEY];
        snprintf(symbol, sizeof symbol, "field %u", field->number);
        Answer answer = picked(device->name, symbol, field->scope);
        *field = (FieldValue){.number = field->number, .scope = field->scope};
        field->code = (unsigned)answer.code;
        field->type = (unsigned)number(&answer.words);
        if (field->type == 1) field->value.ui = (unsigned)number(&answer.words);
        else field->value.ull = number(&answer.words);
    }
    return refused;
}

int nvmlDeviceGetGpuFabricInfo(Device *device, Fabric *out)
GIVE(device, "suuc", out->cluster, sizeof out->cluster, &out->status, &out->clique, &out->state)

/* The newest struct's head is every older one. */
int nvmlDeviceGetGpuFabricInfoV(Device *device, FabricV *out) {
    ASK(device, versioned(device, __func__, out->version));
    FabricV newest = {.version = out->version};
    take(&answer.words, "suucuc", newest.cluster, sizeof newest.cluster, &newest.status,
         &newest.clique, &newest.state, &newest.health_mask, &newest.health_summary);
    memcpy(out, &newest, out->version & VERSION_BYTES);
    return SUCCESS;
}

int nvmlDeviceGetPlatformInfo(Device *device, Platform *out)
GIVE_VERSION(device, out, "ssccccc", out->ib_guid, sizeof out->ib_guid, out->chassis_serial,
             sizeof out->chassis_serial, &out->slot, &out->tray, &out->host, &out->peer,
             &out->module)

int nvmlDeviceGetP2PStatus(Device *a, Device *b, unsigned index, unsigned *out) {
    char pair[MOST_KEY];
    int refused = of_pair(a, b, __func__, pair);
    if (refused) return refused;
    Answer answer = picked(pair, __func__, index);
    if (!answer.code) *out = (unsigned)number(&answer.words);
    return answer.code;
}

int nvmlDeviceGetTopologyCommonAncestor(Device *a, Device *b, unsigned *out) {
    char pair[MOST_KEY];
    int refused = of_pair(a, b, __func__, pair);
    if (refused) return refused;
    Answer answer = answer_of(pair, __func__);
    if (!answer.code) *out = (unsigned)number(&answer.words);
    return answer.code;
}
