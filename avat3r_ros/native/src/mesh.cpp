// Z-buffer rasterizer for triangle meshes, in homogeneous coordinates.
//
// A pixel (x, y) sees the point z * K^-1 (x, y, 1). With the columns of M = K [v0 v1 v2] (camera
// frame) that point is M b with b >= 0 and sum(b) = 1, hence b = z * M^-1 (x, y, 1). The rows of
// adj(M) are cross products of two columns: edge functions that need no division by the vertices'
// depths, so a triangle that reaches behind the camera is drawn right without being clipped, and b
// is already perspective-correct. Two triangles that share an edge evaluate it with exactly
// opposite signs, so no pixel falls between them. (Olano and Greer, "Triangle scan conversion using
// 2D homogeneous coordinates", 1997.)
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "avat3r_native.h"

namespace {

constexpr double kNearPlane = 1e-3;  // metres; nearer surfaces are not drawn

struct Vec3 {
  double x, y, z;
};

Vec3 cross(const Vec3& a, const Vec3& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// A corner in homogeneous pixels, and its pixel if it is in front of the near plane.
struct Corner {
  Vec3 at;
  double x, y;
};

struct PixelBox {
  double x0 = std::numeric_limits<double>::infinity(), x1 = -x0, y0 = x0, y1 = -x0;

  void add(double x, double y) {
    x0 = std::min(x0, x), x1 = std::max(x1, x);
    y0 = std::min(y0, y), y1 = std::max(y1, y);
  }
};

// Box of the part of the triangle in front of the near plane.
PixelBox visible_box(const Corner* const* corners) {
  PixelBox box;
  for (int i = 0; i < 3; i++) {
    const Vec3 &a = corners[i]->at, &b = corners[(i + 1) % 3]->at;
    if (a.z >= kNearPlane) box.add(corners[i]->x, corners[i]->y);
    if ((a.z >= kNearPlane) != (b.z >= kNearPlane)) {
      const double t = (kNearPlane - a.z) / (b.z - a.z);
      box.add((a.x + t * (b.x - a.x)) / kNearPlane, (a.y + t * (b.y - a.y)) / kNearPlane);
    }
  }
  return box;
}

// A triangle's edge functions, positive inside, and its row.
struct Drawn {
  Vec3 edges[3];
  int32_t triangle;
};

bool is_finite(const Vec3& v) { return std::isfinite(v.x + v.y + v.z); }

}  // namespace

int32_t avat3r_abi_version() { return AVAT3R_ABI_VERSION; }

int32_t avat3r_rasterize_mesh(const float* vertices_head, int64_t num_vertices,
                              const int32_t* triangles, int64_t num_triangles,
                              const double* intrinsics, const double* camera_from_head,
                              int32_t width, int32_t height, int32_t cull_backfaces,
                              int32_t* triangle_ids, float* barycentrics, float* depth_m) {
  if (width <= 0 || height <= 0 || num_vertices < 0 || num_triangles < 0) return 1;
  const int64_t num_pixels = (int64_t)width * height;
  std::fill(triangle_ids, triangle_ids + num_pixels, -1);
  std::fill(barycentrics, barycentrics + 3 * num_pixels, 0.f);
  std::fill(depth_m, depth_m + num_pixels, std::numeric_limits<float>::infinity());

  const double *k = intrinsics, *p = camera_from_head;
  std::vector<Corner> vertices(num_vertices);
  for (int64_t i = 0; i < num_vertices; i++) {
    const float* v = vertices_head + 3 * i;
    const double x = p[0] * v[0] + p[1] * v[1] + p[2] * v[2] + p[3];
    const double y = p[4] * v[0] + p[5] * v[1] + p[6] * v[2] + p[7];
    const double z = p[8] * v[0] + p[9] * v[1] + p[10] * v[2] + p[11];
    // K * camera point: (x * z, y * z, z)
    const Vec3 at = {k[0] * x + k[1] * y + k[2] * z, k[3] * x + k[4] * y + k[5] * z, z};
    vertices[i] = {at, at.x / z, at.y / z};
  }

  std::vector<Drawn> drawn;
  for (int64_t t = 0; t < num_triangles; t++) {
    const int32_t* index = triangles + 3 * t;
    const Corner* corners[3] = {&vertices[index[0]], &vertices[index[1]], &vertices[index[2]]};
    const Vec3 &a = corners[0]->at, &b = corners[1]->at, &c = corners[2]->at;
    if (!is_finite(a) || !is_finite(b) || !is_finite(c)) continue;

    const PixelBox box = visible_box(corners);
    // Compared as doubles first: a box that reaches 1e20 must not be cast to int.
    if (!(box.x1 >= 0.5 && box.y1 >= 0.5 && box.x0 <= width - 0.5 && box.y0 <= height - 0.5)) {
      continue;
    }
    const int x0 = (int)std::ceil(std::max(box.x0 - 0.5, 0.0));
    const int x1 = (int)std::floor(std::min(box.x1 - 0.5, width - 1.0));
    const int y0 = (int)std::ceil(std::max(box.y0 - 0.5, 0.0));
    const int y1 = (int)std::floor(std::min(box.y1 - 0.5, height - 1.0));
    if (x0 > x1 || y0 > y1) continue;  // many are smaller than a pixel

    Vec3 edges[3] = {cross(b, c), cross(c, a), cross(a, b)};
    // det(M) is the dot product of a corner and the normal: negative where the outside is seen.
    const double det = a.x * edges[0].x + a.y * edges[0].y + a.z * edges[0].z;
    if (det == 0 || (cull_backfaces && det > 0)) continue;
    if (det < 0) {
      for (Vec3& e : edges) e = {-e.x, -e.y, -e.z};
    }
    const double size = std::fabs(det);
    const int32_t row_of_drawn = (int32_t)drawn.size();
    drawn.push_back({{edges[0], edges[1], edges[2]}, (int32_t)t});
    for (int y = y0; y <= y1; y++) {
      const double py = y + 0.5;
      const double row0 = edges[0].y * py + edges[0].z, row1 = edges[1].y * py + edges[1].z,
                   row2 = edges[2].y * py + edges[2].z;
      float* depths = depth_m + (int64_t)y * width;
      int32_t* nearest = triangle_ids + (int64_t)y * width;
      // Without branches, which would be guessed wrong at every edge.
      for (int x = x0; x <= x1; x++) {
        const double px = x + 0.5;
        const double e0 = edges[0].x * px + row0, e1 = edges[1].x * px + row1,
                     e2 = edges[2].x * px + row2;
        const float depth = (float)(size * (1 / (e0 + e1 + e2)));
        const bool closer = (e0 >= 0) & (e1 >= 0) & (e2 >= 0) & (depth >= (float)kNearPlane) &
                            (depth < depths[x]);
        depths[x] = closer ? depth : depths[x];
        nearest[x] = closer ? row_of_drawn : nearest[x];
      }
    }
  }

  // Where on it a pixel lies is only asked of the nearest triangle.
  for (int y = 0; y < height; y++) {
    for (int x = 0; x < width; x++) {
      const int64_t pixel = (int64_t)y * width + x;
      if (triangle_ids[pixel] < 0) continue;
      const Drawn& nearest = drawn[triangle_ids[pixel]];
      double e[3];
      for (int i = 0; i < 3; i++) {
        const Vec3& edge = nearest.edges[i];
        e[i] = edge.x * (x + 0.5) + (edge.y * (y + 0.5) + edge.z);
      }
      const double inverse_sum = 1 / (e[0] + e[1] + e[2]);
      for (int i = 0; i < 3; i++) barycentrics[3 * pixel + i] = (float)(e[i] * inverse_sum);
      triangle_ids[pixel] = nearest.triangle;
    }
  }
  return 0;
}
