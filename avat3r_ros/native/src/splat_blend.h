// Blending of one tile, front to back. Part of splat_kernels.h.
#pragma once

constexpr int kBatch = 64;  // splats looked at together: one bit each in the masks below
// Splats whose alphas are computed side by side: one alone would leave the processor waiting for
// the latency of its instructions.
constexpr int kGroup = 3;

// What blending needs of a splat, in pixels from the tile's centre. Its alpha is
//   2^(log2_opacity - (p x + q y - u)^2 - (r y - v)^2).
struct alignas(16) BatchSplat {
  float p, q, u, r, v, log2_opacity;
  float x, y;  // its own place
  float channels[kMaxChannels];
};

struct Batch {
  BatchSplat splats[kBatch + 1];  // the last has alpha 0 everywhere
  // Bit i of columns[x] & rows[y]: splat i reaches block (x, y) of the tile.
  uint64_t columns[kTileBlocks], rows[kTileBlocks];
  int count;

  Batch() {
    splats[kBatch] = {};
    splats[kBatch].log2_opacity = -100.f;
  }
};

struct Tile {
  int x, y;           // tile coordinates
  int left, top;      // first pixel
  int columns, rows;  // pixels inside the image
};

AVAT3R_INLINE Tile tile_of(const Avat3rSplatScene& scene, int index) {
  const int tiles_x = (scene.width + kTileSize - 1) / kTileSize;
  Tile t;
  t.x = index % tiles_x, t.y = index / tiles_x;
  t.left = t.x * kTileSize, t.top = t.y * kTileSize;
  t.columns = scene.width - t.left < kTileSize ? scene.width - t.left : kTileSize;
  t.rows = scene.height - t.top < kTileSize ? scene.height - t.top : kTileSize;
  return t;
}

// Index of the lowest bit; kBatch if there is none.
AVAT3R_INLINE int first_bit(uint64_t bits) {
#if defined(__BMI__)
  return (int)_tzcnt_u64(bits);
#else
  return bits ? __builtin_ctzll(bits) : kBatch;
#endif
}

// Bit i set where [low[i], high[i]] and the pixel centres of a block's column or row overlap.
AVAT3R_INLINE uint64_t reaching_block(const float* low, const float* high, int block) {
  const Floats first = broadcast(block * kBlockSize - kTileSize / 2 + 0.5f);
  const Floats last = first + (kBlockSize - 1.f);
  uint64_t bits = 0;
  for (int i = 0; i < kBatch; i += kLanes) {
    const Mask overlap = at_least(last, load(low + i)) & at_least(load(high + i), first);
    bits |= (uint64_t)lane_bits(overlap) << i;
  }
  return bits;
}

// Copy entries [begin, end) of a tile.
template <int kColors, bool kDepth>
static void load_batch(Batch& batch, const Avat3rSplatScene& scene, const CameraLists& lists,
                       const Tile& tile, int64_t begin, int64_t end) {
  alignas(64) float left[kBatch], right[kBatch], top[kBatch], bottom[kBatch];
  const Entry* entries = lists.entries + begin;
  const Splat* splats = lists.splats;
  const float* colors = scene.colors;
  const float centre_x = tile.left + 0.5f * kTileSize, centre_y = tile.top + 0.5f * kTileSize;
  const int count = (int)(end - begin);
  for (int i = 0; i < count; i++) {
    const size_t index = splat_of(entries[i]);
    const Splat& splat = splats[index];
    BatchSplat& copy = batch.splats[i];
    const float x = splat.x - centre_x, y = splat.y - centre_y;
    copy.p = splat.p, copy.q = splat.q, copy.u = splat.p * x + splat.q * y;
    copy.r = splat.r, copy.v = splat.r * y;
    copy.log2_opacity = splat.log2_opacity;
    copy.x = x, copy.y = y;
    for (int k = 0; k < kColors; k++) copy.channels[k] = colors[index * kColors + k];
    if (kDepth) {
      const uint32_t depth = depth_bits_of(entries[i]);
      memcpy(&copy.channels[kColors], &depth, sizeof depth);
    }
    left[i] = x - splat.reach_x, right[i] = x + splat.reach_x;
    top[i] = y - splat.reach_y, bottom[i] = y + splat.reach_y;
  }
  batch.count = count;
  const uint64_t present = ~0ull >> (kBatch - count);  // beyond, the arrays hold anything
  for (int k = 0; k < kTileBlocks; k++) {
    batch.columns[k] = reaching_block(left, right, k) & present;
    batch.rows[k] = reaching_block(top, bottom, k) & present;
  }
}

template <int kChannels>
AVAT3R_INLINE void load_batch(Batch& batch, const Avat3rSplatScene& scene, const CameraLists& lists,
                              const Tile& tile, int64_t begin, int64_t end) {
  if (scene.with_depth) {
    load_batch<kChannels - 1, true>(batch, scene, lists, tile, begin, end);
  } else {
    load_batch<kChannels < kMaxChannels ? kChannels : 0, false>(batch, scene, lists, tile, begin,
                                                                end);
  }
}

static void prefetch_splats(const Avat3rSplatScene& scene, const CameraLists& lists, int64_t begin,
                            int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const size_t index = splat_of(lists.entries[i]);
    __builtin_prefetch(&lists.splats[index]);
    __builtin_prefetch(scene.colors + index * scene.num_colors);
  }
}

alignas(64) static const float kLaneX[kLanes] = {0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f,
                                                 0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f};
alignas(64) static const float kLaneY[kLanes] = {0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f,
                                                 2.5f, 2.5f, 2.5f, 2.5f, 3.5f, 3.5f, 3.5f, 3.5f};

// Pixel centres of a block's column or row, from the tile's centre.
AVAT3R_INLINE Floats block_pixels(const float* lanes, int index) {
  return load(lanes) + (float)(index * kBlockSize - kTileSize / 2);
}

// log2 of the splats' alphas at the lanes' pixels, before the clamp.
template <int kCount>
AVAT3R_INLINE void log2_alpha(const BatchSplat* const (&splats)[kCount], Floats px, Floats py,
                              Floats (&power)[kCount]) {
  Floats u[kCount], v[kCount];
  for (int g = 0; g < kCount; g++) {
    u[g] = multiply_subtract(py, broadcast(splats[g]->q), broadcast(splats[g]->u));
    v[g] = multiply_subtract(py, broadcast(splats[g]->r), broadcast(splats[g]->v));
  }
  for (int g = 0; g < kCount; g++) u[g] = multiply_add(px, broadcast(splats[g]->p), u[g]);
  for (int g = 0; g < kCount; g++) {
    power[g] = negative_multiply_add(v[g], v[g], broadcast(splats[g]->log2_opacity));
  }
  for (int g = 0; g < kCount; g++) power[g] = negative_multiply_add(u[g], u[g], power[g]);
}

// Planes of one tile, as they leave the blender.
template <int kChannels>
struct TileImage {
  alignas(64) float channels[kChannels + 1][kTileSize][kTileSize];  // the last is the transmittance
  alignas(64) int32_t last_entry[kTileSize][kTileSize];
  alignas(64) int32_t bytes[kTileSize][kTileSize];  // three or four a number, the first lowest
  alignas(64) float depths[kTileSize][kTileSize];
};

constexpr float kMinDivisor = 1e-6f;  // keeps quotients of nothing by nothing finite

// Values as bytes, rounded; below 0, above 1 and NaN give 0, 255 and 0.
AVAT3R_INLINE Ints to_bytes(Floats values) {
  const Floats clamped = smaller(larger(values, broadcast(0.f)), broadcast(1.f));
  return to_ints(clamped * 255.f + 0.5f);
}

// Copy a block's 16 lanes to its place in a plane.
template <class T, class Lanes>
AVAT3R_INLINE void write_block(T (*plane)[kTileSize], int block, const Lanes& lanes) {
  alignas(64) T values[kLanes];
  store(values, lanes);
  T* corner = &plane[block / kTileBlocks * kBlockSize][block % kTileBlocks * kBlockSize];
  for (int row = 0; row < kBlockSize; row++) {
    memcpy(corner + row * kTileSize, values + row * kBlockSize, kBlockSize * sizeof(T));
  }
}

template <int kChannels, bool kKeep>
static void write_tile(const BlendTask& task, const Tile& tile, const TileImage<kChannels>& image,
                       const Avat3rSplatOptions& options, const Avat3rSplatImages& images) {
  const Avat3rSplatScene& scene = *task.scene;
  const size_t camera_offset = (size_t)task.camera * scene.width * scene.height;
  for (int y = 0; y < tile.rows; y++) {
    const size_t local = (size_t)(tile.top + y) * scene.width + tile.left;
    const size_t pixel = camera_offset + local;
    if (images.channels) {
      float* out = images.channels + pixel * kChannels;
      for (int x = 0; x < tile.columns; x++) {
        for (int k = 0; k < kChannels; k++) out[kChannels * x + k] = image.channels[k][y][x];
      }
    }
    if (images.alphas) {
      for (int x = 0; x < tile.columns; x++) {
        images.alphas[pixel + x] = 1.f - image.channels[kChannels][y][x];
      }
    }
    if (images.depths) {
      memcpy(images.depths + pixel, image.depths[y], tile.columns * sizeof(float));
    }
    if (images.bytes && kChannels >= 3 && options.bytes_alpha) {
      memcpy(images.bytes + pixel * 4, image.bytes[y], 4 * tile.columns);
    } else if (images.bytes && kChannels >= 3) {
      // Each pixel is written with one byte too many, which the next one overwrites.
      uint8_t bytes[3 * kTileSize + 1];
      for (int x = 0; x < kTileSize; x++) memcpy(bytes + 3 * x, &image.bytes[y][x], 4);
      memcpy(images.bytes + pixel * 3, bytes, 3 * tile.columns);
    }
    if (kKeep) {
      memcpy(task.lists->transmittance + local, image.channels[kChannels][y],
             tile.columns * sizeof(float));
      memcpy(task.lists->last_entry + local, image.last_entry[y], tile.columns * sizeof(int32_t));
    }
  }
}

template <int kChannels, bool kKeep>
static void blend_tile_channels(const BlendTask& task, const Avat3rSplatOptions& options,
                                const Avat3rSplatImages& images, Entry* sort_scratch) {
  const Avat3rSplatScene& scene = *task.scene;
  const CameraLists& lists = *task.lists;
  const Tile tile = tile_of(scene, task.tile);
  // `running` is the product of all (1 - alpha). It only shrinks, so once it is at or below the
  // limit it stays there and masks later splats by itself: stopping costs no select between two
  // splats. `transmittance` is that product as it was after the last splat taken.
  Floats running[kNumBlocks], transmittance[kNumBlocks], color[kNumBlocks][kChannels];
  Ints last_entry[kNumBlocks];
  uint32_t active = 0;  // blocks inside the image with a pixel still above the limit
  for (int block = 0; block < kNumBlocks; block++) {
    running[block] = transmittance[block] = broadcast(1.f);
    for (int k = 0; k < kChannels; k++) color[block][k] = broadcast(0.f);
    last_entry[block] = broadcast_int(-1);
    if (block % kTileBlocks * kBlockSize < tile.columns &&
        block / kTileBlocks * kBlockSize < tile.rows) {
      active |= 1u << block;
    }
  }

  const int64_t begin = lists.tile_begin[task.tile], end = lists.tile_begin[task.tile + 1];
  sort_tile(lists.entries + begin, end - begin, sort_scratch);
  const Floats min_log2 = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha);
  const Floats limit = broadcast(kMinTransmittance);
  // A block ends with its last pixel: nothing that a byte would show comes after.
  const bool numbers = kKeep || images.channels || images.alphas || images.depths;
  const Floats block_limit = broadcast(numbers ? kMinTransmittance : kMinShown);
  Batch batch;
  for (int64_t first = begin; first < end && active; first += kBatch) {
    const int64_t next = first + kBatch < end ? first + kBatch : end;
    prefetch_splats(scene, lists, next, next + kBatch < end ? next + kBatch : end);
    load_batch<kChannels>(batch, scene, lists, tile, first, next);
    for (uint32_t blocks = active; blocks; blocks &= blocks - 1) {
      const int block = __builtin_ctz(blocks);
      const int column = block % kTileBlocks, row = block / kTileBlocks;
      uint64_t reaching = batch.columns[column] & batch.rows[row];
      if (!reaching) continue;
      const Floats px = block_pixels(kLaneX, column), py = block_pixels(kLaneY, row);
      Floats product = running[block], taken = transmittance[block], sums[kChannels];
      for (int k = 0; k < kChannels; k++) sums[k] = color[block][k];
      Ints last = last_entry[block];
      do {
        const BatchSplat* splats[kGroup];
        for (int g = 0; g < kGroup; g++) {
          splats[g] = &batch.splats[first_bit(reaching)];
          keep_in_register(splats[g]);
          reaching &= reaching - 1;
        }
        Floats power[kGroup], alpha[kGroup];
        log2_alpha(splats, px, py, power);
        exp2(power, alpha);
        Mask open;
        for (int g = 0; g < kGroup; g++) {
          const Mask hit = at_least(power[g], min_log2);
          const Floats shade = zero_unless(hit, smaller(alpha[g], max_alpha));
          const Floats before = product;
          product = negative_multiply_add(before, shade, before);
          open = above(product, limit);
          const Floats weight = zero_unless(open, before * shade);
          for (int k = 0; k < kChannels; k++) {
            sums[k] = multiply_add(weight, broadcast(splats[g]->channels[k]), sums[k]);
          }
          taken = select(open, product, taken);
          if (kKeep) {
            const int32_t entry = (int32_t)first + (int32_t)(splats[g] - batch.splats);
            last = select(open & hit, broadcast_int(entry), last);
          }
        }
        if (__builtin_expect(!any(above(product, block_limit)), 0)) {
          active &= ~(1u << block);
          break;
        }
      } while (reaching);
      running[block] = product, transmittance[block] = taken;
      for (int k = 0; k < kChannels; k++) color[block][k] = sums[k];
      if (kKeep) last_entry[block] = last;
    }
  }

  TileImage<kChannels> image;
  for (int block = 0; block < kNumBlocks; block++) {
    Floats values[kChannels];
    for (int k = 0; k < kChannels; k++) {
      values[k] = color[block][k];
      if (scene.backgrounds && k < scene.num_colors) {
        const float background = scene.backgrounds[task.camera * scene.num_colors + k];
        values[k] = multiply_add(transmittance[block], broadcast(background), values[k]);
      }
      if (images.channels) write_block(image.channels[k], block, values[k]);
    }
    const Floats alpha = 1.f - transmittance[block];
    if (images.depths) {
      const Mask enough = at_least(alpha, broadcast(options.min_depth_alpha));
      const Floats depth = values[kChannels - 1] / larger(alpha, broadcast(kMinDivisor));
      write_block(image.depths, block, zero_unless(enough, depth));
    }
    if (images.bytes && kChannels >= 3) {
      if (options.bytes_alpha == AVAT3R_STRAIGHT_ALPHA) {
        const Floats inverse = 1.f / larger(alpha, broadcast(kMinDivisor));
        for (int k = 0; k < 3; k++) values[k] = values[k] * inverse;
      }
      const Ints first = to_bytes(values[options.bgr ? 2 : 0]);
      const Ints second = to_bytes(values[1]), third = to_bytes(values[options.bgr ? 0 : 2]);
      Ints bytes = first | shift_left(second, 8) | shift_left(third, 16);
      if (options.bytes_alpha) bytes = bytes | shift_left(to_bytes(alpha), 24);
      write_block(image.bytes, block, bytes);
    }
    if (images.alphas || kKeep) write_block(image.channels[kChannels], block, transmittance[block]);
    if (kKeep) write_block(image.last_entry, block, last_entry[block]);
  }
  write_tile<kChannels, kKeep>(task, tile, image, options, images);
}

static void blend_tile(const BlendTask& task, const Avat3rSplatOptions& options,
                       const Avat3rSplatImages& images, Entry* sort_scratch) {
  using Blend =
      void (*)(const BlendTask&, const Avat3rSplatOptions&, const Avat3rSplatImages&, Entry*);
  static constexpr Blend kBlends[kMaxChannels][2] = {
      {blend_tile_channels<1, false>, blend_tile_channels<1, true>},
      {blend_tile_channels<2, false>, blend_tile_channels<2, true>},
      {blend_tile_channels<3, false>, blend_tile_channels<3, true>},
      {blend_tile_channels<4, false>, blend_tile_channels<4, true>},
  };
  const int channels = task.scene->num_colors + (task.scene->with_depth ? 1 : 0);
  kBlends[channels - 1][options.keep_for_backward ? 1 : 0](task, options, images, sort_scratch);
}
