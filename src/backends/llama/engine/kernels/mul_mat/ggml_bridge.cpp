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

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

// Mirrors `Operands` in types.rs.
struct wattgate_operands {
    const void *     packed;
    size_t           columns, rows;
    const void *     vectors;  // converted, `vector_bytes` apart
    size_t           count;
    float *          out;
    size_t           stride;  // floats from one place to the next
    const uint32_t * places;  // of each vector's results; null for their own order
};

// Mirrors `KernelTable` in ../mul_mat.rs. A matrix has `rows` of `columns` weights each, `type` is ggml's id.
struct wattgate_kernels {
    bool (*packs)(int type, size_t columns, size_t rows);
    size_t (*packed_bytes)(int type, size_t columns, size_t rows);
    void (*pack)(int type, const void * plain, void * packed, size_t columns, size_t rows);
    size_t (*vector_bytes)(int type, size_t columns);
    void (*convert)(int type, const float * vector, void * converted, size_t columns);
    // Part `part` of `parts` of the products of all rows with all vectors.
    void (*multiply)(int type, const wattgate_operands * operands, size_t part, size_t parts);
};

namespace {

const wattgate_kernels * kernels = nullptr;

ggml_backend_buffer_type_t packed_buffer_type();

// Up to this number of vectors, each thread converts all of them, which is faster than a barrier.
constexpr size_t OWN_VECTORS = 4;

// From this number of weights on, threads take chunks of the rows as they get to them: a thread that loses its core for a
// moment would keep the others waiting. Below, agreeing on chunks takes longer.
constexpr size_t CHUNKED_WEIGHTS   = 4 << 20;
constexpr size_t CHUNKS_PER_THREAD = 8;

bool is_packed(const ggml_tensor * weights) {
    return weights && weights->buffer && weights->buffer->buft == packed_buffer_type();
}

// A matrix, or one for each expert.
bool packs(const ggml_tensor * weights) {
    return weights->ne[3] == 1 && ggml_is_contiguous(weights) &&
           kernels->packs(weights->type, size_t(weights->ne[0]), size_t(weights->ne[1]));
}

const float * vector_at(const ggml_tensor * input, size_t i1, size_t i2, size_t i3) {
    return reinterpret_cast<const float *>(static_cast<const char *>(input->data) + i1 * input->nb[1] + i2 * input->nb[2] +
                                           i3 * input->nb[3]);
}

// One thread's view of an operation.
struct share {
    ggml_threadpool * threadpool;
    size_t            part, parts;
    // Whether each thread has converted vectors of its own.
    bool              alone;
    // Whether threads take chunks.
    bool              chunked;

    share(const ggml_compute_params * params, size_t vectors, size_t weights) :
        threadpool(params->threadpool),
        part(size_t(params->ith)),
        parts(size_t(params->nth)),
        alone(vectors <= OWN_VECTORS),
        chunked(parts > 1 && (!alone || weights >= CHUNKED_WEIGHTS)) {}

    // Calls `convert` for the vectors that this thread converts.
    template <typename F> void convert(size_t vectors, F convert) const {
        for (size_t vector = alone ? 0 : part; vector < vectors; vector += alone ? 1 : parts) {
            convert(vector);
        }
    }

    // Calls `compute` with this thread's part of each of `products`, once all vectors are converted.
    template <typename F> void compute(size_t products, F compute) const {
        if (chunked && part == 0) {
            ggml_threadpool_chunk_set(threadpool, int(parts));
        }
        if (chunked || !alone) {
            ggml_barrier(threadpool);
        }
        // Experts are chunks enough.
        const size_t pieces = chunked && products == 1 ? parts * CHUNKS_PER_THREAD : parts;
        for (size_t chunk = part; chunk < products * pieces;) {
            compute(chunk / pieces, chunk % pieces, pieces);
            chunk = chunked ? size_t(ggml_threadpool_chunk_add(threadpool, 1)) : chunk + parts;
        }
    }
};

size_t work_bytes(const ggml_tensor * weights, size_t vectors, bool alone, int n_threads) {
    return (alone ? size_t(n_threads) : 1) * vectors * kernels->vector_bytes(weights->type, size_t(weights->ne[0]));
}

class product : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        const size_t vectors = size_t(ggml_nrows(op->src[1]));
        size                 = work_bytes(op->src[0], vectors, vectors <= OWN_VECTORS, n_threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * input   = op->src[1];
        const size_t        columns = size_t(weights->ne[0]), rows = size_t(weights->ne[1]);
        const size_t        vectors = size_t(ggml_nrows(input)), bytes = kernels->vector_bytes(weights->type, columns);
        const share         share(params, vectors, rows * columns);
        char *              converted = static_cast<char *>(params->wdata) + (share.alone ? share.part * vectors * bytes : 0);

        GGML_ASSERT(op->type == GGML_TYPE_F32 && ggml_is_contiguous(op));
        GGML_ASSERT(input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float));
        GGML_ASSERT(params->wsize >= work_bytes(weights, vectors, share.alone, params->nth));

        share.convert(vectors, [&](size_t vector) {
            const size_t  i1 = vector % input->ne[1], i23 = vector / input->ne[1];
            const float * values = vector_at(input, i1, i23 % input->ne[2], i23 / input->ne[2]);
            kernels->convert(weights->type, values, converted + vector * bytes, columns);
        });
        const wattgate_operands operands = { weights->data, columns, rows, converted, vectors, static_cast<float *>(op->data),
                                             rows, nullptr };
        share.compute(1, [&](size_t, size_t piece, size_t pieces) {
            kernels->multiply(weights->type, &operands, piece, pieces);
        });
        return true;
    }
};

// Which vectors each expert is multiplied with. A pair is one of a token's experts; pairs have their experts' order.
struct experts {
    size_t     used, tokens, count;
    uint32_t * begin;   // of each expert's pairs, and their end
    uint32_t * order;   // the place of each pair among all, in its expert's order
    uint32_t * places;  // the inverse: the pair at each place

    experts(const ggml_tensor * op, void * memory) :
        used(size_t(op->src[2]->ne[0])),
        tokens(size_t(op->src[2]->ne[1])),
        count(size_t(op->src[0]->ne[2])),
        begin(static_cast<uint32_t *>(memory)),
        order(begin + count + 1),
        places(order + pairs()) {}

    size_t pairs() const { return used * tokens; }

    static size_t bytes(const ggml_tensor * op) {
        const size_t numbers = size_t(op->src[0]->ne[2]) + 1 + 2 * size_t(ggml_nelements(op->src[2]));
        return GGML_PAD(numbers * sizeof(uint32_t), 64);
    }

    void sort(const ggml_tensor * ids) {
        const auto expert = [&](size_t pair) {
            const char * row = static_cast<const char *>(ids->data) + pair / used * ids->nb[1];
            const auto   id  = *reinterpret_cast<const int32_t *>(row + pair % used * ids->nb[0]);
            GGML_ASSERT(id >= 0 && size_t(id) < count);
            return size_t(id);
        };
        std::fill_n(begin, count + 1, 0);
        for (size_t pair = 0; pair < pairs(); pair++) {
            begin[expert(pair) + 1]++;
        }
        std::partial_sum(begin, begin + count + 1, begin);
        // Moves each beginning to its end, and back.
        for (size_t pair = 0; pair < pairs(); pair++) {
            order[pair]         = begin[expert(pair)]++;
            places[order[pair]] = uint32_t(pair);
        }
        std::copy_backward(begin, begin + count, begin + count + 1);
        begin[0] = 0;
    }
};

class product_of_experts : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = size_t(n_threads) * experts::bytes(op) + converted_bytes(op, n_threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * input   = op->src[1];
        const ggml_tensor * ids     = op->src[2];
        const size_t        columns = size_t(weights->ne[0]), rows = size_t(weights->ne[1]);
        // Each of a token's experts has a vector of its own, or all have the same.
        const size_t        each = size_t(input->ne[1]), vectors = size_t(ggml_nrows(input));
        const size_t        bytes = kernels->vector_bytes(weights->type, columns);
        char *              work  = static_cast<char *>(params->wdata);
        experts             experts(op, work + size_t(params->ith) * experts::bytes(op));
        const share         share(params, vectors, experts.used * rows * columns);
        char *              converted = work + size_t(params->nth) * experts::bytes(op);
        converted += share.alone ? share.part * experts.pairs() * bytes : 0;

        GGML_ASSERT(op->type == GGML_TYPE_F32 && ggml_is_contiguous(op));
        GGML_ASSERT(input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float));
        GGML_ASSERT(ids->type == GGML_TYPE_I32 && size_t(input->ne[2]) == experts.tokens && experts.used % each == 0);
        GGML_ASSERT(params->wsize >= size_t(params->nth) * experts::bytes(op) + converted_bytes(op, params->nth));

        experts.sort(ids);
        share.convert(vectors, [&](size_t vector) {
            const size_t token = vector / each;
            const auto   place = [&](size_t number) {
                return converted + experts.order[token * experts.used + vector % each + number * each] * bytes;
            };
            kernels->convert(weights->type, vector_at(input, vector % each, token, 0), place(0), columns);
            for (size_t number = 1; number < experts.used / each; number++) {
                std::memcpy(place(number), place(0), bytes);
            }
        });
        const size_t matrix_bytes = kernels->packed_bytes(weights->type, columns, rows);
        share.compute(experts.count, [&](size_t expert, size_t piece, size_t pieces) {
            const size_t begin = experts.begin[expert], count = experts.begin[expert + 1] - begin;
            if (count > 0) {
                const wattgate_operands operands = {
                    static_cast<const char *>(weights->data) + expert * matrix_bytes, columns, rows, converted + begin * bytes, count,
                    static_cast<float *>(op->data), rows, experts.places + begin,
                };
                kernels->multiply(weights->type, &operands, piece, pieces);
            }
        });
        return true;
    }

  private:
    static size_t converted_bytes(const ggml_tensor * op, int n_threads) {
        const bool alone = size_t(ggml_nrows(op->src[1])) <= OWN_VECTORS;
        return work_bytes(op->src[0], size_t(ggml_nelements(op->src[2])), alone, n_threads);
    }
};

class packed_weights : public ggml::cpu::extra_buffer_type {
  public:
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * input = op->src[1];
        return get_tensor_traits(op) && packs(op->src[0]) && input->type == GGML_TYPE_F32 &&
               (!input->buffer || ggml_backend_buft_is_host(input->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        static product            of_matrix;
        static product_of_experts of_experts;
        if (!is_packed(op->src[0])) {
            return nullptr;
        }
        if (op->op == GGML_OP_MUL_MAT_ID) {
            return &of_experts;
        }
        return op->op == GGML_OP_MUL_MAT && op->src[0]->ne[2] == 1 ? &of_matrix : nullptr;
    }
};

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    const size_t columns = size_t(tensor->ne[0]), rows = size_t(tensor->ne[1]);
    const size_t bytes   = kernels->packed_bytes(tensor->type, columns, rows);
    for (size_t expert = 0; expert < size_t(tensor->ne[2]); expert++) {
        kernels->pack(tensor->type, static_cast<const char *>(data) + expert * tensor->nb[2],
                      static_cast<char *>(tensor->data) + expert * bytes, columns, rows);
    }
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
    const size_t bytes = kernels->packed_bytes(tensor->type, size_t(tensor->ne[0]), size_t(tensor->ne[1]));
    return packs(tensor) ? size_t(tensor->ne[2]) * bytes : ggml_nbytes(tensor);
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
