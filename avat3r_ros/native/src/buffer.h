// Grow-only memory, 64-byte aligned and not initialised: nothing is touched twice in steady state.
#pragma once
#include <cstdlib>
#include <new>

namespace avat3r {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  // Make room for `count` values; what was there is lost when it grows. Throws std::bad_alloc.
  T* reserve(size_t count) {
    if (count > capacity_) {
      std::free(data_);
      data_ = nullptr, capacity_ = 0;
      const size_t roomy = count + count / 8 + 64;
      const size_t bytes = (roomy * sizeof(T) + 63) / 64 * 64;
      data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = roomy;
    }
    return data_;
  }
  T* data() { return data_; }

 private:
  T* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace avat3r
