// The Python face of the native executor. Arrays are checked here, once; behind this file sizes are trusted.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "dot_rate.h"
#include "executor.h"
#include "step_arrays.h"

namespace py = pybind11;

namespace {

using layerscale::Array;
using layerscale::Batch;
using layerscale::Executor;
using layerscale::kLanes;
using layerscale::KvType;
using layerscale::Matrix;
using layerscale::require;
using layerscale::StepArrays;
using layerscale::Storage;

// The instruction-set levels this processor runs, best first; known without executing any of them.
std::vector<std::string> supported_levels() {
    std::vector<std::string> levels;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma"))
        levels.push_back("avx512");
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        levels.push_back("avx2");
#endif
    levels.push_back("baseline");
    return levels;
}

template <typename Pack>
void pack_panels(Executor& executor, Matrix& matrix, int first_row, int num_rows, const Pack& pack) {
    require(first_row % kLanes == 0 && first_row >= 0 && first_row + num_rows <= matrix.rows, "rows out of range");
    py::gil_scoped_release release;
    executor.pool().parallel_for((num_rows + kLanes - 1) / kLanes, [&](int index, int) {
        pack(first_row / kLanes + index, index * kLanes, std::min(kLanes, num_rows - index * kLanes));
    });
}

void add_codes(Executor& executor, const std::string& name, int rows, int cols, int bits, int group_size,
               bool has_minima, float zero_point, const std::vector<uint8_t>& codebook) {
    require(bits == 4 || bits == 6 || bits == 8, "bits must be 4, 6 or 8");
    require(group_size == 16 || group_size == 32, "group_size must be 16 or 32");
    require(rows > 0 && cols > 0 && cols % layerscale::kGroup == 0, "cols must be a multiple of 32");
    require(codebook.empty() || (codebook.size() == 16 && bits == 4 && group_size == 32), "codebook is for 4 bits");
    Matrix matrix{bits == 4 ? Storage::kCodes4 : bits == 6 ? Storage::kCodes6 : Storage::kCodes8, rows, cols};
    matrix.group_size = group_size;
    matrix.has_minima = has_minima;
    matrix.zero_point = zero_point;
    matrix.has_codebook = !codebook.empty();
    std::copy(codebook.begin(), codebook.end(), matrix.codebook.begin());
    executor.add_matrix(name, matrix);
}

void pack_codes(Executor& executor, const std::string& name, int first_row, const Array<uint8_t>& codes,
                const Array<float>& scales, const std::optional<Array<float>>& minima) {
    Matrix& matrix = executor.matrix(name);
    require(matrix.is_quantized(), "not a matrix of codes");
    const int num_rows = static_cast<int>(codes.shape(0)), scale_cols = matrix.cols / matrix.group_size;
    require(codes.ndim() == 2 && codes.shape(1) == matrix.cols, "codes have the wrong shape");
    require(scales.ndim() == 2 && scales.shape(0) == num_rows && scales.shape(1) == scale_cols, "scales: wrong shape");
    require(minima.has_value() == matrix.has_minima, "minima are missing or not expected");
    require(!minima || (minima->ndim() == 2 && minima->shape(0) == num_rows && minima->shape(1) == scale_cols),
            "minima: wrong shape");
    const uint8_t* code_data = codes.data();
    const float* scale_data = scales.data();
    const float* minimum_data = minima ? minima->data() : nullptr;
    pack_panels(executor, matrix, first_row, num_rows, [&](int panel, int row, int count) {
        const size_t scale_offset = static_cast<size_t>(row) * scale_cols;
        layerscale::pack_codes(matrix, panel, count, code_data + static_cast<size_t>(row) * matrix.cols,
                               scale_data + scale_offset, minimum_data ? minimum_data + scale_offset : nullptr);
    });
}

void add_floats(Executor& executor, const std::string& name, int rows, int cols, const std::string& type) {
    require(rows > 0 && cols > 0, "a matrix has rows and columns");
    require(type == "float32" || type == "float16" || type == "bfloat16", "type must be float32, float16 or bfloat16");
    const Storage storage = type == "float32" ? Storage::kFloat : type == "float16" ? Storage::kHalf : Storage::kBfloat;
    executor.add_matrix(name, Matrix{storage, rows, cols});
}

void pack_floats(Executor& executor, const std::string& name, int first_row, const py::array& values) {
    Matrix& matrix = executor.matrix(name);
    require(!matrix.is_quantized(), "not a matrix of floats");
    const py::ssize_t size = matrix.storage == Storage::kFloat ? 4 : 2;
    require(values.ndim() == 2 && values.shape(1) == matrix.cols && values.itemsize() == size, "values: wrong shape");
    require(values.flags() & py::array::c_style, "values must be contiguous");
    const uint8_t* data = static_cast<const uint8_t*>(values.data());
    const int num_rows = static_cast<int>(values.shape(0));
    pack_panels(executor, matrix, first_row, num_rows, [&](int panel, int row, int count) {
        layerscale::pack_floats(matrix, panel, count, data + static_cast<size_t>(row) * matrix.cols * size);
    });
}

// A view of the executor's own buffer; the executor is kept alive by it.
py::array_t<float> view(Executor& executor, const float* data, int rows, int cols) {
    return py::array_t<float>({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(cols)}, data, py::cast(&executor));
}

// The logits, and each row's likeliest token or None.
py::tuple step(Executor& executor, const py::object& step_batch) {
    const StepArrays arrays(step_batch);
    const Batch batch = arrays.batch();
    const auto compute = [&] {
        const py::gil_scoped_release release;
        check_places(batch, executor.kv());
        check_ends(batch, executor.shape().vocab_size);
        return executor.step(batch);
    };
    const Executor::Logits logits = compute();
    py::list likeliest;
    for (const int32_t token : logits.likeliest) likeliest.append(token < 0 ? py::object(py::none()) : py::int_(token));
    return py::make_tuple(view(executor, logits.values, batch.num_logits, executor.shape().vocab_size), likeliest);
}

py::array_t<float> run_layers(Executor& executor, const py::object& step_batch, const Array<float>& x, int first, int last) {
    const StepArrays arrays(step_batch);
    Batch batch = arrays.batch();
    batch.num_logits = 0;
    const int hidden = executor.shape().hidden_size, num_layers = static_cast<int>(executor.shape().layers.size());
    require(x.ndim() == 2 && x.shape(0) == batch.num_tokens && x.shape(1) == hidden, "x: wrong shape");
    require(0 <= first && first <= last && last <= num_layers, "layers out of range");
    const float *activations = x.data(), *result;
    {
        py::gil_scoped_release release;
        check_places(batch, executor.kv());
        result = executor.run_layers(batch, activations, first, last);
    }
    return view(executor, result, batch.num_tokens, hidden);
}

void commit(Executor& executor, const std::string& kv_type, int num_pages) {
    require(kv_type == "fp16" || kv_type == "int8" || kv_type == "int4", "kv_type must be fp16, int8 or int4");
    py::gil_scoped_release release;
    executor.commit(kv_type == "fp16"   ? KvType::kFp16
                    : kv_type == "int8" ? KvType::kInt8
                                        : KvType::kInt4,
                    num_pages);
}

void check_pages(const Executor& executor, const Array<int32_t>& pages) {
    const int count = executor.kv().num_pages();
    require(std::all_of(pages.data(), pages.data() + pages.size(), [=](int32_t id) { return 0 <= id && id < count; }),
            "page id out of range");
}

void copy_pages(Executor& executor, const Array<int32_t>& sources, const Array<int32_t>& targets) {
    require(sources.size() == targets.size(), "as many sources as targets");
    check_pages(executor, sources);
    check_pages(executor, targets);
    for (py::ssize_t i = 0; i < sources.size(); ++i) executor.kv().copy_page(sources.data()[i], targets.data()[i]);
}

void shift_positions(Executor& executor, const Array<int32_t>& pages, int64_t delta) {
    check_pages(executor, pages);
    py::gil_scoped_release release;
    executor.shift_positions(pages.data(), static_cast<int>(pages.size()), delta);
}

py::array_t<uint8_t> read_pages(const Executor& executor, const Array<int32_t>& pages) {
    check_pages(executor, pages);
    const size_t page_bytes = executor.kv().page_bytes();
    py::array_t<uint8_t> content({pages.size(), static_cast<py::ssize_t>(page_bytes)});
    for (py::ssize_t i = 0; i < pages.size(); ++i)
        executor.kv().read_page(pages.data()[i], content.mutable_data() + i * page_bytes);
    return content;
}

void write_pages(Executor& executor, const Array<int32_t>& pages, const Array<uint8_t>& content) {
    check_pages(executor, pages);
    const size_t page_bytes = executor.kv().page_bytes();
    require(content.ndim() == 2 && content.shape(0) == pages.size() &&
                content.shape(1) == static_cast<py::ssize_t>(page_bytes),
            "the content has another shape than the pages");
    for (py::ssize_t i = 0; i < pages.size(); ++i)
        executor.kv().write_page(pages.data()[i], content.data() + i * page_bytes);
}

}  // namespace

PYBIND11_MODULE(LAYERSCALE_MODULE, module) {
    // module_local: two levels are loaded at once, the baseline to ask the processor and the one that computes.
    module.doc() = "Native kernels of the CPU backend, compiled for one instruction-set level.";
    module.def("supported_levels", &supported_levels, "Instruction-set levels this processor runs, best first.");
    module.def("measure_dot_rate", &layerscale::measure_dot_rate, py::call_guard<py::gil_scoped_release>());

    py::class_<layerscale::Rope>(module, "Rope", py::module_local()).def(py::init<std::vector<double>, float, bool>());
    py::class_<layerscale::AttentionShape>(module, "AttentionShape", py::module_local()).def(py::init<int, int, int, float, int, int, float, bool, bool, int, int, float>());
    py::class_<layerscale::LayerShape>(module, "LayerShape", py::module_local()).def(py::init<layerscale::AttentionShape, int, int, bool, bool, int, int, bool, bool, int>());
    py::class_<layerscale::ModelShape>(module, "ModelShape", py::module_local())
        .def(py::init<int, int, float, bool, float, float, std::vector<layerscale::Rope>, std::vector<layerscale::LayerShape>>());
    py::class_<Executor>(module, "Executor", py::module_local())
        .def(py::init<layerscale::ModelShape, int, int>())
        .def("add_codes", &add_codes)
        .def("pack_codes", &pack_codes)
        .def("add_floats", &add_floats)
        .def("pack_floats", &pack_floats)
        .def("add_vector",
             [](Executor& executor, const std::string& name, const Array<float>& values) {
                 executor.add_vector(name, values.data(), static_cast<int>(values.size()));
             })
        .def("commit", &commit)
        .def("step", &step)
        .def("run_layers", &run_layers)
        .def("copy_pages", &copy_pages)
        .def("shift_positions", &shift_positions)
        .def("read_pages", &read_pages)
        .def("write_pages", &write_pages)
        .def_property_readonly("allocated_bytes", &Executor::allocated_bytes);
}
