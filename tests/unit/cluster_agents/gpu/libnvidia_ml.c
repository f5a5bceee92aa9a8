/* A libnvidia-ml.so.1 that reads what it answers from the file named by NVML_STUB, "key=value" a line, at every call: a
 * test changes it while a probe runs. Keys: gpus, init, and of each GPU "N.key". An "N.lost=1" has every call on it say
 * so; "N.hang=1" has it never return. Events stand in the file as "event=N:type:data:instance" and are told once to each
 * event set. Without functions that old drivers lack when built with -DOLD. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TIMEOUT = 10, LOST = 15 };
enum { XID = 8, DOUBLE_BIT = 2 };
#define GPUS 32
#define INSTANCES 8

struct device { int gpu, instance; };
static struct device devices[GPUS], parts[GPUS][INSTANCES];
static int told;

static const char *value(const char *key) {
  static char line[512];
  size_t size = strlen(key);
  FILE *file = fopen(getenv("NVML_STUB"), "r");
  const char *found = NULL;
  while (file && !found && fgets(line, sizeof line, file))
    if (!strncmp(line, key, size) && line[size] == '=') {
      line[strcspn(line, "\n")] = 0;
      found = line + size + 1;
    }
  if (file) fclose(file);
  return found;
}

static const char *of(int gpu, const char *key) {
  char name[64];
  snprintf(name, sizeof name, "%d.%s", gpu, key);
  return value(name);
}

static long long number(int gpu, const char *key) {
  const char *found = of(gpu, key);
  return found ? atoll(found) : 0;
}

static int state(struct device *device) {
  if (number(device->gpu, "hang")) for (;;) sleep(1000);
  if (number(device->gpu, "lost")) return LOST;
  return number(device->gpu, "error");
}

#define ASK(device) do { int bad = state(device); if (bad) return bad; } while (0)
#define WORDS(text, size, ...) (snprintf(text, size, __VA_ARGS__) < (int)(size) ? OK : INVALID)

int nvmlInitWithFlags(unsigned flags) { (void)flags; return value("init") ? atoi(value("init")) : OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) {
  if (value("gone")) return atoi(value("gone"));
  *count = value("gpus") ? atoi(value("gpus")) : 0;
  return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **handle) {
  devices[index] = (struct device){(int)index, -1};
  *handle = &devices[index];
  if (number((int)index, "hidden")) return NO_PERMISSION;
  return state(*handle);
}
int nvmlDeviceGetUUID(struct device *device, char *text, unsigned size) {
  ASK(device);
  return WORDS(text, size, "GPU-%d", device->gpu);
}
int nvmlDeviceGetName(struct device *device, char *text, unsigned size) {
  ASK(device);
  char key[32];
  snprintf(key, sizeof key, "mig%d", device->instance);
  const char *profile = device->instance < 0 ? NULL : of(device->gpu, key);
  return profile ? WORDS(text, size, "NVIDIA H200 MIG %s", profile) : WORDS(text, size, "NVIDIA H200");
}
int nvmlDeviceGetMemoryInfo(struct device *device, unsigned long long *memory) {
  ASK(device);
  memory[0] = 150754820096ULL;
  memory[1] = memory[0];
  memory[2] = 0;
  return OK;
}
int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending) {
  ASK(device);
  *current = *pending = (unsigned)number(device->gpu, "mig");
  return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *count) {
  ASK(device);
  *count = number(device->gpu, "mig") ? 7 : 0;
  return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **handle) {
  ASK(device);
  char key[32];
  snprintf(key, sizeof key, "mig%u", index);
  if (number(device->gpu, "mighidden")) return NO_PERMISSION;
  if (index >= INSTANCES || !of(device->gpu, key)) return NOT_FOUND;
  parts[device->gpu][index] = (struct device){device->gpu, (int)index};
  *handle = &parts[device->gpu][index];
  return OK;
}
int nvmlDeviceGetGpuInstanceId(struct device *device, unsigned *id) {
  ASK(device);
  *id = (unsigned)device->instance + 7; /* ids are not indices */
  return OK;
}
int nvmlDeviceGetTotalEccErrors(struct device *device, int type, int counter, unsigned long long *count) {
  ASK(device);
  *count = type == 1 && counter == 0 ? (unsigned long long)number(device->gpu, "ecc") : 5;
  return OK;
}
#ifndef OLD
int nvmlDeviceGetRemappedRows(struct device *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
  ASK(device);
  *corrected = *uncorrected = (unsigned)number(device->gpu, "remapped");
  *pending = (unsigned)number(device->gpu, "pending");
  *failed = (unsigned)number(device->gpu, "failed");
  return OK;
}
int nvmlDeviceGetUnrepairableMemoryFlag_v1(struct device *device, unsigned *flag) {
  ASK(device);
  flag[1] = (unsigned)number(device->gpu, "unrepairable"); /* behind the version */
  return OK;
}
int nvmlEventSetCreate(void **set) { static int one; *set = &one; told = 0; return OK; }
#endif
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceGetSupportedEventTypes(struct device *device, unsigned long long *types) {
  ASK(device);
  *types = 65439;
  return OK;
}
int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, void *set) {
  (void)set;
  ASK(device);
  return types == (XID | DOUBLE_BIT) ? OK : INVALID;
}
struct event { struct device *device; unsigned long long type, data; unsigned instance, compute; };
int nvmlEventSetWait_v2(void *set, struct event *event, unsigned within_ms) {
  (void)set;
  for (unsigned waited_ms = 0; waited_ms <= within_ms; waited_ms += 20, usleep(20000)) {
    char line[512];
    int seen = 0, gpu;
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    while (file && fgets(line, sizeof line, file))
      if (sscanf(line, "event=%d:%llu:%llu:%u", &gpu, &event->type, &event->data, &event->instance) == 4 && seen++ == told) {
        told++;
        event->device = &devices[gpu];
        event->compute = event->instance == 0xFFFFFFFF ? 0xFFFFFFFF : 0;
        fclose(file);
        return OK;
      }
    if (file) fclose(file);
    if (value("waiterror")) return atoi(value("waiterror"));
  }
  return TIMEOUT;
}
