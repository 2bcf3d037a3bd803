// Bridge between ggml and the CPU kernels: registers a weight layout with ggml, and calls Wattgate's functions (Rust,
// ../mul_mat.rs) to pack weights and to multiply with them. Contains no arithmetic.
//
// ggml offers each weight to the "extra buffer types" of its CPU backend, as for its own repacked layouts. The list
// belongs to ggml and must be extended before the first model is loaded.

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

// Mirrors `KernelTable` in ../mul_mat.rs. A matrix has `rows` of `columns` weights each, `type` is ggml's id.
struct wattgate_kernels {
    bool (*packs)(int type, size_t columns, size_t rows);
    size_t (*packed_bytes)(int type, size_t columns, size_t rows);
    void (*pack)(int type, const void * plain, void * packed, size_t columns, size_t rows);
    size_t (*quantised_bytes)(size_t columns);
    void (*quantise)(const float * vector, void * quantised, size_t columns);
    // Part `part` of `parts` of the products of all rows with all vectors; each vector fills `stride` floats of `out`.
    void (*multiply)(int type, const void * packed, size_t columns, size_t rows, const void * quantised, size_t vectors,
                     float * out, size_t stride, size_t part, size_t parts);
};

namespace {

const wattgate_kernels * kernels = nullptr;

ggml_backend_buffer_type_t packed_buffer_type();

// Up to this number of vectors, each thread quantises all of them, which is faster than a barrier.
constexpr size_t OWN_VECTORS = 4;

// From this number of weights on, threads take chunks of the rows as they get to them: a thread that loses its core for a
// moment would keep the others waiting. Below, agreeing on chunks takes longer.
constexpr size_t CHUNKED_WEIGHTS   = 4 << 20;
constexpr size_t CHUNKS_PER_THREAD = 8;

bool is_packed(const ggml_tensor * weights) {
    return weights && weights->buffer && weights->buffer->buft == packed_buffer_type();
}

bool packs(const ggml_tensor * weights) {
    return ggml_n_dims(weights) == 2 && ggml_is_contiguous(weights) &&
           kernels->packs(weights->type, size_t(weights->ne[0]), size_t(weights->ne[1]));
}

class product : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        const size_t vectors = size_t(ggml_nrows(op->src[1]));
        const size_t copies  = vectors <= OWN_VECTORS ? size_t(n_threads) : 1;
        size                 = copies * vectors * kernels->quantised_bytes(size_t(op->src[1]->ne[0]));
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * input   = op->src[1];
        const size_t        part = size_t(params->ith), parts = size_t(params->nth);
        const size_t        columns = size_t(weights->ne[0]), rows = size_t(weights->ne[1]);
        const size_t        vectors = size_t(ggml_nrows(input)), bytes = kernels->quantised_bytes(columns);
        const bool          alone = vectors <= OWN_VECTORS;
        char *              quantised = static_cast<char *>(params->wdata) + (alone ? part * vectors * bytes : 0);

        GGML_ASSERT(op->type == GGML_TYPE_F32 && ggml_is_contiguous(op));
        GGML_ASSERT(input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float));
        GGML_ASSERT(params->wsize >= (alone ? parts : 1) * vectors * bytes);

        for (size_t vector = alone ? 0 : part; vector < vectors; vector += alone ? 1 : parts) {
            const size_t i1 = vector % input->ne[1], i23 = vector / input->ne[1];
            const size_t i2 = i23 % input->ne[2], i3 = i23 / input->ne[2];
            const char * values = static_cast<const char *>(input->data) + i1 * input->nb[1] + i2 * input->nb[2] + i3 * input->nb[3];
            kernels->quantise(reinterpret_cast<const float *>(values), quantised + vector * bytes, columns);
        }
        const bool chunked = parts > 1 && (!alone || rows * columns >= CHUNKED_WEIGHTS);
        if (chunked && part == 0) {
            ggml_threadpool_chunk_set(params->threadpool, int(parts));
        }
        if (chunked || !alone) {
            ggml_barrier(params->threadpool);
        }
        const size_t chunks = chunked ? parts * CHUNKS_PER_THREAD : parts;
        for (size_t chunk = part; chunk < chunks;
             chunk        = chunked ? size_t(ggml_threadpool_chunk_add(params->threadpool, 1)) : chunks) {
            kernels->multiply(weights->type, weights->data, columns, rows, quantised, vectors,
                              static_cast<float *>(op->data), rows, chunk, chunks);
        }
        return true;
    }
};

class packed_weights : public ggml::cpu::extra_buffer_type {
  public:
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * input = op->src[1];
        return op->op == GGML_OP_MUL_MAT && is_packed(op->src[0]) && packs(op->src[0]) && input->type == GGML_TYPE_F32 &&
               (!input->buffer || ggml_backend_buft_is_host(input->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        static product of_packed;
        return op->op == GGML_OP_MUL_MAT && is_packed(op->src[0]) ? &of_packed : nullptr;
    }
};

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    kernels->pack(tensor->type, data, tensor->data, size_t(tensor->ne[0]), size_t(tensor->ne[1]));
}

const char * get_name(ggml_backend_buffer_type_t) {
    return "CPU_WATTGATE";
}

// Asks for huge pages: every token reads all weights once, and with pages of 4 KiB waits for their addresses.
void prefer_huge_pages(void * start, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = 2 << 20;
    const uintptr_t     from = (uintptr_t(start) + page - 1) / page * page, to = (uintptr_t(start) + size) / page * page;
    if (from < to) {
        // A kernel without them goes on with small ones.
        (void) madvise(reinterpret_cast<void *>(from), to - from, MADV_HUGEPAGE);
    }
#else
    (void) start, (void) size;
#endif
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        prefer_huge_pages(ggml_backend_buffer_get_base(buffer), size);
        buffer->buft             = buft;
        buffer->iface.set_tensor = set_tensor;
        buffer->iface.get_tensor = nullptr;
        buffer->iface.cpy_tensor = nullptr;
    }
    return buffer;
}

size_t get_alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return packs(tensor) ? kernels->packed_bytes(tensor->type, size_t(tensor->ne[0]), size_t(tensor->ne[1])) :
                           ggml_nbytes(tensor);
}

size_t get_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

ggml_backend_buffer_type_t packed_buffer_type() {
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type type = {};
        type.iface.get_name           = get_name;
        type.iface.alloc_buffer       = alloc_buffer;
        type.iface.get_alignment      = get_alignment;
        type.iface.get_alloc_size     = get_alloc_size;
        type.device                   = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
        type.context                  = new packed_weights();
        return type;
    }();
    return &type;
}

}  // namespace

// Call once, before the first model is loaded; `table` must be static.
extern "C" void wattgate_register_kernels(const wattgate_kernels * table) {
    kernels = table;
    auto & types = ggml_backend_cpu_get_extra_buffer_types();
    types.insert(types.begin(), packed_buffer_type());
}
