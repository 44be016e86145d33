#include "thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace layerscale {

namespace {

// Long enough to bridge the gaps between a step's loops, short enough that an idle server costs nothing.
constexpr std::chrono::microseconds kSpinTime{100};

// Looks for a loop between two at the clock, which takes as long as a few of them.
constexpr int kSpinsPerLook = 64;

// Looks at an unfinished worker before the caller gives its core away: the worker may need it.
constexpr int kSpinsBeforeYield = 2000;

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
        state_.fetch_add(kEpoch);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int count, Call call, const void* body) {
    count_ = count;
    call_ = call;
    body_ = body;
    next_index_.store(0, std::memory_order_relaxed);
    // Sequentially consistent with sleepers_: a worker that goes to sleep sees the loop, or we see the sleeper.
    state_.fetch_add(kEpoch + kOpen);
    if (sleepers_.load() > 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    take_indices(0);
    state_.fetch_sub(kOpen);
    for (int spins = 0; (state_.load(std::memory_order_acquire) & kInside) != 0; ++spins) {
        if (spins < kSpinsBeforeYield) pause_cpu();
        else std::this_thread::yield();
    }
}

void ThreadPool::take_indices(int thread) {
    for (int index; (index = next_index_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(body_, index, thread);
}

void ThreadPool::work(int thread) {
    uint64_t state = 0;
    while (state = wait_for_loop(state / kEpoch), !stopping_.load(std::memory_order_acquire)) {
        if (!try_enter(state)) continue;
        take_indices(thread);
        state_.fetch_sub(kWorker, std::memory_order_release);
    }
}

// Enters the loop of `state` unless it has closed meanwhile.
bool ThreadPool::try_enter(uint64_t state) {
    const uint64_t epoch = state / kEpoch;
    while ((state & kOpen) != 0 && state / kEpoch == epoch)
        if (state_.compare_exchange_weak(state, state + kWorker, std::memory_order_acq_rel)) return true;
    return false;
}

// Returns the state of the first loop after `seen_epoch`.
uint64_t ThreadPool::wait_for_loop(uint64_t seen_epoch) {
    const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
    uint64_t state;
    for (int spins = 1; (state = state_.load(std::memory_order_acquire)) / kEpoch == seen_epoch; ++spins) {
        pause_cpu();
        if (spins % kSpinsPerLook != 0 || std::chrono::steady_clock::now() < deadline) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return state_.load() / kEpoch != seen_epoch; });
        sleepers_.fetch_sub(1);
    }
    return state;
}

}  // namespace layerscale
