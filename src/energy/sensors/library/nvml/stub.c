// A stand-in for NVIDIA's libnvidia-ml.so, built by the tests: its cards are a text file, one line a card, named by the
// macro CARDS: energy in mJ (or -1 for a card without a counter), power in mW, MIG mode, and the result of every call
// (0 fine, 15 lost). Only what Wattgate calls is here; the wrapper misses nothing else.
#include <stdio.h>
#include <string.h>

typedef struct { long long energy, power; int mig, result; } card;

static int read_cards(card *cards, int room) {
    FILE *file = fopen(CARDS, "r");
    int count = 0;
    if (!file) return -1;
    while (count < room && fscanf(file, "%lld %lld %d %d", &cards[count].energy, &cards[count].power,
                                  &cards[count].mig, &cards[count].result) == 4)
        count++;
    fclose(file);
    return count;
}

// A handle is the card's index and one, as a pointer.
static int find(void *handle, card *found) {
    card cards[16];
    int index = (int)(long)handle - 1, count = read_cards(cards, 16);
    if (index < 0 || index >= count) return 6;
    *found = cards[index];
    return found->result;
}

int nvmlInit_v2(void) { card cards[16]; return read_cards(cards, 16) < 0 ? 9 : 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    card cards[16];
    int found = read_cards(cards, 16);
    if (found < 0) return 999;
    *count = (unsigned)found;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    card one;
    void *wanted = (void *)(long)(index + 1);
    int result = find(wanted, &one);
    if (result == 0) *handle = wanted;
    return result;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    snprintf(name, length, "Stub %ld", (long)handle - 1);
    return 0;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    card one;
    int result = find(handle, &one);
    if (result) return result;
    if (one.mig < 0) return 3;
    *current = *pending = (unsigned)one.mig;
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy) {
    card one;
    int result = find(handle, &one);
    if (result) return result;
    if (one.energy < 0) return 3;
    *energy = (unsigned long long)one.energy;
    return 0;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power) {
    card one;
    int result = find(handle, &one);
    if (result) return result;
    if (one.power < 0) return 3;
    *power = (unsigned)one.power;
    return 0;
}
