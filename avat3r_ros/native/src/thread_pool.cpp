#include "thread_pool.h"

#include <unistd.h>

#include <algorithm>

namespace avat3r {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

constexpr int kSpins = 2000;  // some 50 us: longer than the gap between two jobs of one frame

}  // namespace

ThreadPool& ThreadPool::instance() {
  // Threads do not survive fork(): a child gets a pool of its own. The pool is never destroyed, so
  // that no thread outlives what it uses when the process exits.
  static std::mutex mutex;
  static ThreadPool* pool = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (pool == nullptr || owner != getpid()) {
    pool = new ThreadPool();
    owner = getpid();
  }
  return *pool;
}

void ThreadPool::run_erased(int count, int num_threads, Function function, void* task) {
  num_threads = std::min({num_threads, count, kMaxThreads});
  std::unique_lock<std::mutex> in_use(in_use_, std::defer_lock);
  if (num_threads <= 1 || !in_use.try_lock()) {
    for (int index = 0; index < count; index++) function(task, index, 0);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    while ((int)threads_.size() + 1 < num_threads) {
      const int worker = (int)threads_.size() + 1;
      threads_.emplace_back([this, worker] { work(worker); });
      threads_.back().detach();
    }
    function_ = function, task_ = task, count_ = count, job_threads_ = num_threads;
    next_ = 0;
    job_open_ = true;
    generation_++;
  }
  job_posted_.notify_all();
  take_tasks(0);
  {
    // From here on no thread can enter the job; those that woke too late are not waited for.
    std::lock_guard<std::mutex> lock(mutex_);
    job_open_ = false;
  }
  for (int spins = 0; busy_.load(std::memory_order_acquire) > 0; spins++) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::take_tasks(int worker) {
  for (int index; (index = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
    function_(task_, index, worker);
  }
}

void ThreadPool::work(int worker) {
  unsigned seen = 0;
  for (;;) {
    for (int spins = 0; spins < kSpins && generation_.load() == seen; spins++) pause();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      job_posted_.wait(lock, [&] { return generation_.load() != seen; });
      seen = generation_.load();
      if (!job_open_ || worker >= job_threads_) continue;
      busy_++;
    }
    take_tasks(worker);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace avat3r
