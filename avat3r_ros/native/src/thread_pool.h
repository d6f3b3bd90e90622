// A small persistent thread pool: no OpenMP runtime to clash with torch's, and it survives fork().
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace avat3r {

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 64;

  // The pool of this process; it grows to the largest number of threads asked for.
  static ThreadPool& instance();

  // Run task(index, worker) for index in [0, count), worker in [0, num_threads), and return when
  // all are done. Tasks are handed out one by one in no fixed order. When another thread is using
  // the pool, the caller does all tasks itself.
  template <class Task>
  void run(int count, int num_threads, Task&& task) {
    using Type = std::remove_reference_t<Task>;
    run_erased(
        count, num_threads,
        [](void* erased, int index, int worker) { (*(Type*)erased)(index, worker); }, (void*)&task);
  }

 private:
  using Function = void (*)(void*, int, int);

  void run_erased(int count, int num_threads, Function function, void* task);
  void work(int worker);
  void take_tasks(int worker);

  std::mutex in_use_;
  std::mutex mutex_;  // guards what follows, up to the atomics
  std::condition_variable job_posted_;
  std::vector<std::thread> threads_;
  bool job_open_ = false;
  int job_threads_ = 0;
  Function function_ = nullptr;
  void* task_ = nullptr;
  int count_ = 0;

  std::atomic<unsigned> generation_{0};
  std::atomic<int> next_{0};
  std::atomic<int> busy_{0};
};

}  // namespace avat3r
