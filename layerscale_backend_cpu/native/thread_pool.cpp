#include "thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace layerscale {

namespace {

// Long enough to bridge the gaps between a step's loops, short enough that an idle server costs nothing.
constexpr std::chrono::microseconds kSpinTime{100};

inline void pause_cpu() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
    for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_.store(true);
        epoch_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int count, Call call, const void* body) {
    count_ = count;
    call_ = call;
    body_ = body;
    next_index_.store(0, std::memory_order_relaxed);
    busy_workers_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1);  // sequentially consistent with sleepers_: a worker sees the loop, or we see the sleeper
    if (sleepers_.load() > 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    take_indices(0);
    // Workers may be descheduled when cores are oversubscribed: give ours away after a short spin.
    for (int spins = 0; busy_workers_.load(std::memory_order_acquire) > 0; ++spins) {
        if (spins < 2000) pause_cpu();
        else std::this_thread::yield();
    }
}

void ThreadPool::take_indices(int thread) {
    for (int index; (index = next_index_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(body_, index, thread);
}

void ThreadPool::work(int thread) {
    unsigned seen = 0;
    while (wait_for_loop(seen)) {
        seen = epoch_.load(std::memory_order_acquire);
        take_indices(thread);
        busy_workers_.fetch_sub(1, std::memory_order_release);
    }
}

// Returns false when the pool ends.
bool ThreadPool::wait_for_loop(unsigned seen) {
    const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
    while (epoch_.load(std::memory_order_acquire) == seen) {
        for (int i = 0; i < 64; ++i) pause_cpu();
        if (std::chrono::steady_clock::now() < deadline) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return epoch_.load() != seen; });
        sleepers_.fetch_sub(1);
    }
    return !stopping_.load(std::memory_order_acquire);
}

}  // namespace layerscale
