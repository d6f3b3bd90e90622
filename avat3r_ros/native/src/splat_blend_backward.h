// Derivative of blending one tile: its list back to front. Part of splat_kernels.h.
//
// With T_i the transmittance in front of splat i, w_i = alpha_i T_i its weight, c_i its channels
// and g the image's gradient,
//   dL/dc_i     = w_i g
//   dL/dalpha_i = T_i (g . c_i) - (B + sum over j behind i of w_j (g . c_j)) / (1 - alpha_i)
// where B = T_last (g . background - dL/dalpha_image) is what the light behind all splats adds.
#pragma once

// What the pixels of one block bring to the backward pass.
template <int kChannels>
struct BlockGradient {
  Floats channels[kChannels];  // g
  Floats transmittance;        // in front of the splats gone through so far
  Floats behind;               // B + sum of w_j (g . c_j) over them
  Ints last_entry;
  int32_t highest_entry;  // of all lanes; -1 where the block took no splat
};

template <int kChannels>
static void load_block_gradient(BlockGradient<kChannels>& out, const BlendTask& task,
                                const Avat3rSplatGradients& gradients, int left, int top) {
  const Avat3rSplatScene& scene = *task.scene;
  alignas(64) float channels[kChannels][kLanes], transmittance[kLanes], behind[kLanes];
  alignas(64) int32_t last_entry[kLanes];
  out.highest_entry = -1;
  for (int lane = 0; lane < kLanes; lane++) {
    const int x = left + lane % kBlockSize, y = top + lane / kBlockSize;
    const bool inside = x < scene.width && y < scene.height;
    const size_t local = inside ? (size_t)y * scene.width + x : 0;
    const size_t pixel = (size_t)task.camera * scene.width * scene.height + local;
    transmittance[lane] = inside ? task.lists->transmittance[local] : 1.f;
    last_entry[lane] = inside ? task.lists->last_entry[local] : -1;
    if (last_entry[lane] > out.highest_entry) out.highest_entry = last_entry[lane];
    float background = 0.f;
    for (int k = 0; k < kChannels; k++) {
      const float g = inside ? gradients.channels[pixel * kChannels + k] : 0.f;
      channels[k][lane] = g;
      if (scene.backgrounds && k < scene.num_colors) {
        background += g * scene.backgrounds[task.camera * scene.num_colors + k];
      }
    }
    const float alpha = inside && gradients.alphas ? gradients.alphas[pixel] : 0.f;
    behind[lane] = transmittance[lane] * (background - alpha);
  }
  for (int k = 0; k < kChannels; k++) out.channels[k] = load(channels[k]);
  out.transmittance = load(transmittance);
  out.behind = load(behind);
  out.last_entry = load(last_entry);
}

// Rows of entries [begin, end): those of a splat follow its tile box, row by row.
static void find_pairs(uint32_t* pairs, const CameraLists& lists, const Tile& tile, int64_t begin,
                       int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const uint32_t index = splat_of(lists.entries[i]);
    const TileBox box = lists.boxes[index];
    const uint32_t pair = lists.first_pair[index] +
                          (uint32_t)((tile.y - box.y0) * (box.x1 - box.x0 + 1) + tile.x - box.x0);
    __builtin_prefetch(lists.pair_rows + (size_t)pair * kPairRow, 1);
    pairs[i - begin] = pair;
  }
}

template <int kChannels>
static void blend_tile_backward_channels(const BlendTask& task,
                                         const Avat3rSplatGradients& gradients) {
  constexpr int kSums = kPairMoments + kChannels;
  const CameraLists& lists = *task.lists;
  const Avat3rSplatScene& scene = *task.scene;
  const Tile tile = tile_of(scene, task.tile);
  BlockGradient<kChannels> blocks[kNumBlocks];
  int32_t highest = -1;
  for (int block = 0; block < kNumBlocks; block++) {
    load_block_gradient(blocks[block], task, gradients,
                        tile.left + block % kTileBlocks * kBlockSize,
                        tile.top + block / kTileBlocks * kBlockSize);
    if (blocks[block].highest_entry > highest) highest = blocks[block].highest_entry;
  }
  if (highest < 0) return;

  const Floats min_log2 = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha);
  const int64_t begin = lists.tile_begin[task.tile];
  Batch batch;
  uint32_t pairs[kBatch];
  Floats sums[kBatch][kSums];  // one lane a pixel position, added up over the blocks
  for (int64_t b = (highest - begin) / kBatch; b >= 0; b--) {
    const int64_t first = begin + b * kBatch;
    const int64_t next = first + kBatch < highest + 1 ? first + kBatch : highest + 1;
    prefetch_splats(scene, lists, first - kBatch < begin ? begin : first - kBatch, first);
    load_batch<kChannels>(batch, scene, lists, tile, first, next);
    find_pairs(pairs, lists, tile, first, next);
    memset((void*)sums, 0, sizeof sums[0] * batch.count);
    uint64_t touched = 0;
    for (int index = 0; index < kNumBlocks; index++) {
      BlockGradient<kChannels>& block = blocks[index];
      if (block.highest_entry < first) continue;
      const int column = index % kTileBlocks, row = index / kTileBlocks;
      uint64_t reaching = batch.columns[column] & batch.rows[row];
      const int64_t taken = block.highest_entry + 1 - first;
      if (taken < kBatch) reaching &= (1ull << taken) - 1;
      if (!reaching) continue;
      const Floats px = block_pixels(kLaneX, column), py = block_pixels(kLaneY, row);
      Floats transmittance = block.transmittance, behind = block.behind;
      do {
        const int i = 63 - __builtin_clzll(reaching);
        reaching &= ~(1ull << i);
        const BatchSplat& splat = batch.splats[i];
        const BatchSplat* const one[1] = {&splat};
        Floats powers[1];
        log2_alpha(one, px, py, powers);
        const Floats power = powers[0], dx = px - splat.x, dy = py - splat.y;
        const Mask hit = at_least(power, min_log2) &
                         at_least(block.last_entry, broadcast_int((int32_t)first + i));
        if (!any(hit)) continue;
        touched |= 1ull << i;
        const Floats unclamped = exp2(larger(power, broadcast(-120.f)));
        const Floats alpha = zero_unless(hit, smaller(unclamped, max_alpha));
        const Floats inverse = 1.f / (1.f - alpha);
        transmittance = transmittance * inverse;
        const Floats weight = alpha * transmittance;
        Floats dot = block.channels[0] * splat.channels[0];
        for (int k = 1; k < kChannels; k++) {
          dot = multiply_add(block.channels[k], broadcast(splat.channels[k]), dot);
        }
        const Floats alpha_gradient = transmittance * dot - inverse * behind;
        behind = multiply_add(weight, dot, behind);
        // The clamp at kMaxAlpha lets no gradient through.
        const Floats s = zero_unless(hit & at_most(unclamped, max_alpha), alpha * alpha_gradient);
        const Floats sx = s * dx, sy = s * dy;
        Floats* out = sums[i];
        out[0] += s, out[1] += sx, out[2] += sy;
        out[3] = multiply_add(sx, dx, out[3]);
        out[4] = multiply_add(sx, dy, out[4]);
        out[5] = multiply_add(sy, dy, out[5]);
        for (int k = 0; k < kChannels; k++) {
          out[kPairMoments + k] = multiply_add(weight, block.channels[k], out[kPairMoments + k]);
        }
      } while (reaching);
      block.transmittance = transmittance, block.behind = behind;
    }
    for (; touched; touched &= touched - 1) {
      const int i = __builtin_ctzll(touched);
      float* row = lists.pair_rows + (size_t)pairs[i] * kPairRow;
      for (int k = 0; k < kSums; k++) row[k] = sum(sums[i][k]);
      row[kPairUsed] = 1.f;
    }
  }
}

static void blend_tile_backward(const BlendTask& task, const Avat3rSplatGradients& gradients) {
  switch (task.scene->num_colors + (task.scene->with_depth ? 1 : 0)) {
    case 1:
      return blend_tile_backward_channels<1>(task, gradients);
    case 2:
      return blend_tile_backward_channels<2>(task, gradients);
    case 3:
      return blend_tile_backward_channels<3>(task, gradients);
    default:
      return blend_tile_backward_channels<4>(task, gradients);
  }
}
