// Depth sort of one tile's list. Part of splat_kernels.h.
#pragma once

// Exact order of the whole 64 bits (depth, then index), quick when nearly sorted.
static void insertion_sort(uint64_t* a, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    const uint64_t value = a[i];
    if (a[i - 1] <= value) continue;
    int64_t j = i;
    do {
      a[j] = a[j - 1];
      j--;
    } while (j > 0 && a[j - 1] > value);
    a[j] = value;
  }
}

// Two counting passes over 2 * kBits bits of (depth - lowest) >> shift. Stable.
template <int kBits>
static void radix_sort(uint64_t* a, uint64_t* scratch, int64_t n, uint32_t lowest, int shift) {
  constexpr uint32_t kBuckets = 1u << kBits;
  uint32_t low[kBuckets], high[kBuckets];
  memset(low, 0, sizeof low);
  memset(high, 0, sizeof high);
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = ((uint32_t)(a[i] >> 32) - lowest) >> shift;
    low[key & (kBuckets - 1)]++;
    high[key >> kBits]++;
  }
  uint32_t low_sum = 0, high_sum = 0;
  for (uint32_t b = 0; b < kBuckets; b++) {
    const uint32_t low_count = low[b], high_count = high[b];
    low[b] = low_sum, high[b] = high_sum;
    low_sum += low_count, high_sum += high_count;
  }
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = ((uint32_t)(a[i] >> 32) - lowest) >> shift;
    scratch[low[key & (kBuckets - 1)]++] = a[i];
  }
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = ((uint32_t)(scratch[i] >> 32) - lowest) >> shift;
    a[high[key >> kBits]++] = scratch[i];
  }
}

// Sort front to back; equal depths by index, as gsplat does. A radix sort of the leading bits in
// which the depths of this tile differ, then an insertion sort for what is left.
static void sort_tile(uint64_t* a, int64_t n, uint64_t* scratch) {
  if (n > 24) {
    uint32_t lowest = ~0u, highest = 0;
    for (int64_t i = 0; i < n; i++) {
      const uint32_t key = (uint32_t)(a[i] >> 32);
      lowest = key < lowest ? key : lowest;
      highest = key > highest ? key : highest;
    }
    const int bits = highest == lowest ? 0 : 32 - __builtin_clz(highest - lowest);
    if (n < 160) {
      radix_sort<6>(a, scratch, n, lowest, bits > 12 ? bits - 12 : 0);
    } else if (n < 4096) {
      radix_sort<8>(a, scratch, n, lowest, bits > 16 ? bits - 16 : 0);
    } else {
      radix_sort<11>(a, scratch, n, lowest, bits > 22 ? bits - 22 : 0);
    }
  }
  insertion_sort(a, n);
}
