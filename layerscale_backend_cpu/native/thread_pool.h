// A pool of threads that divide one loop at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace layerscale {

// The caller is one of the threads and never waits for a worker that did not come: on a busy machine a loop costs what
// the caller alone would take. Workers spin briefly between loops, because a step is hundreds of short loops, and sleep
// when nothing comes. Indices are handed out one by one, so a slow core takes fewer.
class ThreadPool {
public:
    explicit ThreadPool(int num_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls body(index, thread) for every index in [0, count), 0 <= thread < num_threads(); returns when all are done.
    template <typename Body>
    void parallel_for(int count, const Body& body) {
        if (count <= 0) return;
        if (count == 1 || workers_.empty()) {
            for (int index = 0; index < count; ++index) body(index, 0);
            return;
        }
        run(count, &call<Body>, &body);
    }

private:
    using Call = void (*)(const void* body, int index, int thread);

    template <typename Body>
    static void call(const void* body, int index, int thread) {
        (*static_cast<const Body*>(body))(index, thread);
    }

    // The loop's state in one word: bit 0 = a worker may still enter, bits 1 to 31 = workers inside, above = epoch,
    // which grows by one per loop.
    static constexpr uint64_t kOpen = 1, kWorker = 2, kEpoch = uint64_t{1} << 32;
    static constexpr uint64_t kInside = kEpoch - kWorker;

    void run(int count, Call call, const void* body);
    void work(int thread);
    void take_indices(int thread);
    bool try_enter(uint64_t state);
    uint64_t wait_for_loop(uint64_t seen_epoch);

    std::vector<std::thread> workers_;
    std::atomic<uint64_t> state_{0};
    std::atomic<int> next_index_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stopping_{false};
    // Written only while the loop is closed and nobody is inside.
    int count_ = 0;
    Call call_ = nullptr;
    const void* body_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
};

}  // namespace layerscale
