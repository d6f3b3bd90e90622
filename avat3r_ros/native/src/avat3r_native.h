// C interface of libavat3r_native: everything Python calls through ctypes (see ../__init__.py).
//
// Arrays are dense and row-major, poses are `a_from_b`, units are metres and pixels, pixel centres lie
// at +0.5. Nothing here throws: bad sizes come back as a non-zero status, bad numbers are skipped.
#pragma once
#include <cstdint>

#if defined(_WIN32)
#define AVAT3R_API __declspec(dllexport)
#else
#define AVAT3R_API __attribute__((visibility("default")))
#endif

extern "C" {

// Raised whenever a struct or a signature below changes; Python refuses a library of another number.
constexpr int32_t AVAT3R_ABI_VERSION = 1;
AVAT3R_API int32_t avat3r_abi_version();

// Nearest triangle of every pixel. `triangle_ids` is -1 and `depth_m` infinite where there is none;
// `barycentrics` (3 a pixel) are those of the surface point, not of its projection.
AVAT3R_API int32_t avat3r_rasterize_mesh(
    const float* vertices_head, int64_t num_vertices, const int32_t* triangles, int64_t num_triangles,
    const double* intrinsics, const double* camera_from_head, int32_t width, int32_t height,
    int32_t cull_backfaces, int32_t* triangle_ids, float* barycentrics, float* depth_m);

}  // extern "C"
