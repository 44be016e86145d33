// A pool of threads that divide one loop at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace layerscale {

// The caller is one of the threads. Workers spin briefly between loops, because a step is hundreds of short loops, and
// sleep when nothing comes. Indices are handed out one by one, so a slow core takes fewer.
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

    void run(int count, Call call, const void* body);
    void work(int thread);
    void take_indices(int thread);
    bool wait_for_loop(unsigned seen);

    std::vector<std::thread> workers_;
    std::atomic<unsigned> epoch_{0};     // grows by one per loop; published last
    std::atomic<int> next_index_{0};
    std::atomic<int> busy_workers_{0};
    std::atomic<bool> stopping_{false};
    std::atomic<int> sleepers_{0};
    int count_ = 0;
    Call call_ = nullptr;
    const void* body_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
};

}  // namespace layerscale
