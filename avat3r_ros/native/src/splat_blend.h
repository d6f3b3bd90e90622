// Blending of one tile, front to back. Part of splat_kernels.h.
#pragma once

constexpr int kBatch = 64;  // splats looked at together: one bit each in the masks below

// What blending needs of a splat, copied next to each other.
struct alignas(16) BatchSplat {
  float x, y, a, b, c, log2_opacity;
  float channels[kMaxChannels];
  uint32_t pair;  // backward only: row of this splat and tile
  int32_t entry;  // position in the camera's entries
};

struct Batch {
  BatchSplat splats[kBatch];
  // Bit i of columns[x] & rows[y]: splat i reaches block (x, y) of the tile.
  uint64_t columns[kTileBlocks], rows[kTileBlocks];
  int count;
};

// Bit i set where low[i] <= value <= high[i].
AVAT3R_INLINE uint64_t range_mask(const int8_t* low, const int8_t* high, int value) {
  uint64_t mask = 0;
#if defined(__SSE2__)
  const __m128i v = _mm_set1_epi8((char)value);
  for (int i = 0; i < kBatch; i += 16) {
    const __m128i l = _mm_load_si128((const __m128i*)(low + i));
    const __m128i h = _mm_load_si128((const __m128i*)(high + i));
    const __m128i outside = _mm_or_si128(_mm_cmpgt_epi8(l, v), _mm_cmpgt_epi8(v, h));
    mask |= (uint64_t)(uint16_t)~_mm_movemask_epi8(outside) << i;
  }
#else
  for (int i = 0; i < kBatch; i++) {
    mask |= (uint64_t)(low[i] <= value && value <= high[i]) << i;
  }
#endif
  return mask;
}

// Gather entries [begin, end) of tile (tile_x, tile_y).
template <bool kBackward>
static void load_batch(Batch& batch, const CameraLists& lists, int64_t begin, int64_t end,
                       int tile_x, int tile_y) {
  alignas(64) int8_t x0[kBatch], x1[kBatch], y0[kBatch], y1[kBatch];
  const int count = (int)(end - begin);
  const int block_x = tile_x * kTileBlocks, block_y = tile_y * kTileBlocks;
  for (int i = 0; i < count; i++) {
    const uint32_t index = (uint32_t)lists.entries[begin + i];
    const Splat& splat = lists.splats[index];
    BatchSplat& copy = batch.splats[i];
    memcpy(&copy.x, &splat.x, 6 * sizeof(float));
    memcpy(copy.channels, splat.channels, sizeof copy.channels);
    copy.entry = (int32_t)(begin + i);
    if (kBackward) {
      // The splat's rows follow its tile box, row by row.
      const int box_x = splat.block_x0 / kTileBlocks, box_y = splat.block_y0 / kTileBlocks;
      const int box_width = splat.block_x1 / kTileBlocks - box_x + 1;
      copy.pair = (uint32_t)(lists.chunk_first_pair[index / kGaussianChunk] + splat.first_pair) +
                  (uint32_t)((tile_y - box_y) * box_width + (tile_x - box_x));
      __builtin_prefetch(lists.pair_rows + (size_t)copy.pair * kPairRow, 1);
    }
    const int left = splat.block_x0 - block_x, right = splat.block_x1 - block_x;
    const int top = splat.block_y0 - block_y, bottom = splat.block_y1 - block_y;
    x0[i] = (int8_t)(left < 0 ? 0 : left);
    x1[i] = (int8_t)(right > kTileBlocks - 1 ? kTileBlocks - 1 : right);
    y0[i] = (int8_t)(top < 0 ? 0 : top);
    y1[i] = (int8_t)(bottom > kTileBlocks - 1 ? kTileBlocks - 1 : bottom);
  }
  for (int i = count; i < kBatch; i++) x0[i] = y0[i] = 127, x1[i] = y1[i] = -1;
  for (int k = 0; k < kTileBlocks; k++) {
    batch.columns[k] = range_mask(x0, x1, k);
    batch.rows[k] = range_mask(y0, y1, k);
  }
  batch.count = count;
}

static void prefetch_splats(const CameraLists& lists, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    __builtin_prefetch(&lists.splats[(uint32_t)lists.entries[i]]);
  }
}

alignas(64) static const float kLaneX[kLanes] = {0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f,
                                                 0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f};
alignas(64) static const float kLaneY[kLanes] = {0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f,
                                                 2.5f, 2.5f, 2.5f, 2.5f, 3.5f, 3.5f, 3.5f, 3.5f};

// log2 of a splat's alpha at the lanes' pixels, before the clamp.
AVAT3R_INLINE Floats log2_alpha(const BatchSplat& splat, Floats dx, Floats dy) {
  const Floats along_x = multiply_add(broadcast(splat.a), dx, broadcast(splat.b) * dy);
  const Floats sum = multiply_add(dx, along_x, broadcast(splat.log2_opacity));
  return multiply_add(dy, broadcast(splat.c) * dy, sum);
}

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

// Planes of one tile, as they leave the blender.
template <int kChannels>
struct TileImage {
  alignas(64) float channels[kChannels + 1][kTileSize][kTileSize];  // the last is the transmittance
  alignas(64) int32_t last_entry[kTileSize][kTileSize];
};

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
    if (images.bytes && kChannels >= 3) {
      uint8_t bytes[3][kTileSize];
      for (int k = 0; k < 3; k++) {
        const float* values = image.channels[kChannels >= 3 ? k : 0][y];
        uint8_t* plane = bytes[options.bgr ? 2 - k : k];
        for (int x = 0; x < kTileSize; x++) {
          const float positive = values[x] > 0.f ? values[x] : 0.f;  // NaN gives 0
          const float clamped = positive < 1.f ? positive : 1.f;
          plane[x] = (uint8_t)(int32_t)(clamped * 255.f + 0.5f);
        }
      }
      uint8_t* out = images.bytes + pixel * 3;
      for (int x = 0; x < tile.columns; x++) {
        out[3 * x] = bytes[0][x], out[3 * x + 1] = bytes[1][x], out[3 * x + 2] = bytes[2][x];
      }
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
                                const Avat3rSplatImages& images, uint64_t* sort_scratch) {
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
  Batch batch;
  for (int64_t first = begin; first < end && active; first += kBatch) {
    const int64_t next = first + kBatch < end ? first + kBatch : end;
    prefetch_splats(lists, next, next + kBatch < end ? next + kBatch : end);
    load_batch<false>(batch, lists, first, next, tile.x, tile.y);
    for (uint32_t blocks = active; blocks; blocks &= blocks - 1) {
      const int block = __builtin_ctz(blocks);
      const int column = block % kTileBlocks, row = block / kTileBlocks;
      uint64_t reaching = batch.columns[column] & batch.rows[row];
      if (!reaching) continue;
      const Floats px = load(kLaneX) + (float)(tile.left + column * kBlockSize);
      const Floats py = load(kLaneY) + (float)(tile.top + row * kBlockSize);
      Floats product = running[block], taken = transmittance[block], sums[kChannels];
      for (int k = 0; k < kChannels; k++) sums[k] = color[block][k];
      Ints last = last_entry[block];
      do {
        const BatchSplat& splat = batch.splats[__builtin_ctzll(reaching)];
        reaching &= reaching - 1;
        const Floats power = log2_alpha(splat, px - splat.x, py - splat.y);
        const Mask hit = at_least(power, min_log2);
        const Floats alpha = zero_unless(hit, smaller(exp2(power), max_alpha));
        const Floats before = product;
        product = negative_multiply_add(before, alpha, before);
        const Mask open = above(product, limit);
        const Floats weight = zero_unless(open, before * alpha);
        for (int k = 0; k < kChannels; k++) {
          sums[k] = multiply_add(weight, broadcast(splat.channels[k]), sums[k]);
        }
        taken = select(open, product, taken);
        if (kKeep) last = select(open & hit, broadcast_int(splat.entry), last);
        if (__builtin_expect(!any(open), 0)) {
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
    for (int k = 0; k < kChannels; k++) {
      Floats value = color[block][k];
      if (scene.backgrounds && k < scene.num_colors) {
        const float background = scene.backgrounds[task.camera * scene.num_colors + k];
        value = multiply_add(transmittance[block], broadcast(background), value);
      }
      write_block(image.channels[k], block, value);
    }
    write_block(image.channels[kChannels], block, transmittance[block]);
    if (kKeep) write_block(image.last_entry, block, last_entry[block]);
  }
  write_tile<kChannels, kKeep>(task, tile, image, options, images);
}

static void blend_tile(const BlendTask& task, const Avat3rSplatOptions& options,
                       const Avat3rSplatImages& images, uint64_t* sort_scratch) {
  using Blend =
      void (*)(const BlendTask&, const Avat3rSplatOptions&, const Avat3rSplatImages&, uint64_t*);
  static constexpr Blend kBlends[kMaxChannels][2] = {
      {blend_tile_channels<1, false>, blend_tile_channels<1, true>},
      {blend_tile_channels<2, false>, blend_tile_channels<2, true>},
      {blend_tile_channels<3, false>, blend_tile_channels<3, true>},
      {blend_tile_channels<4, false>, blend_tile_channels<4, true>},
  };
  const int channels = task.scene->num_colors + (task.scene->with_depth ? 1 : 0);
  kBlends[channels - 1][options.keep_for_backward ? 1 : 0](task, options, images, sort_scratch);
}
