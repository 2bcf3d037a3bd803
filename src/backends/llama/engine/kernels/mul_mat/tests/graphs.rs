//! Products as llama.cpp asks for them: operations of a graph, evaluated by several threads.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use llama_cpp_sys_2::*;

use super::*;
use crate::backends::llama::engine::kernels;

/// The thread barrier serves one team, and ggml's registry is the process's.
static ONE_AT_A_TIME: Mutex<bool> = Mutex::new(false);

/// Tensors and their memory.
struct Tensors {
    context: NonNull<ggml_context>,
    buffer: ggml_backend_buffer_t,
}

impl Tensors {
    fn new() -> Self {
        // SAFETY: without memory of its own, ggml allocates it.
        let context = unsafe {
            let mem_size = 16 * ggml_tensor_overhead() + ggml_graph_overhead();
            let mem_buffer = ptr::null_mut();
            ggml_init(ggml_init_params { mem_size, mem_buffer, no_alloc: true })
        };
        Self { context: NonNull::new(context).unwrap(), buffer: ptr::null_mut() }
    }

    /// Allocates all tensors so far.
    fn allocate(&mut self, buffer_type: ggml_backend_buffer_type_t) {
        // SAFETY: the context is valid.
        self.buffer =
            unsafe { ggml_backend_alloc_ctx_tensors_from_buft(self.context.as_ptr(), buffer_type) };
        assert!(!self.buffer.is_null());
    }

    fn tensor(&self, ggml_type: u32, [a, b, c]: [usize; 3]) -> *mut ggml_tensor {
        let [a, b, c] = [a, b, c].map(|count| i64::try_from(count).unwrap());
        // SAFETY: the context is valid and has room.
        unsafe { ggml_new_tensor_3d(self.context.as_ptr(), ggml_type, a, b, c) }
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: both are freed once; a null buffer is allowed.
        unsafe {
            ggml_backend_buffer_free(self.buffer);
            ggml_free(self.context.as_ptr());
        }
    }
}

fn set<T>(tensor: *mut ggml_tensor, values: &[T]) {
    // SAFETY: the tensor is allocated, and its size is checked.
    unsafe {
        assert_eq!(ggml_nbytes(tensor), size_of_val(values));
        ggml_backend_tensor_set(tensor, values.as_ptr().cast(), 0, size_of_val(values));
    }
}

/// The CPU's device with own kernels, and the type of their buffers.
fn device(installed: &mut bool) -> (ggml_backend_dev_t, ggml_backend_buffer_type_t) {
    type BufferTypes =
        unsafe extern "C" fn(ggml_backend_dev_t) -> *const ggml_backend_buffer_type_t;
    if !*installed {
        kernels::install(CpuCode::best());
        *installed = true;
    }
    // SAFETY: the registry has a CPU, and the function has this type.
    unsafe {
        let cpu = ggml_backend_reg_by_name(c"CPU".as_ptr());
        let device = ggml_backend_reg_dev_get(cpu, 0);
        let name = c"ggml_backend_dev_get_extra_bufts";
        let types = ggml_backend_reg_get_proc_address(cpu, name.as_ptr());
        let types = std::mem::transmute::<*mut c_void, BufferTypes>(types);
        // Own kernels are asked first.
        (device, *types(device))
    }
}

/// The experts' products with vectors, of which each of a token's experts has its own or all have
/// the same. Without `ids`, the products of a single matrix.
fn evaluate(
    experts: &[Matrix],
    ids: Option<&[i32]>,
    used: usize,
    vectors: &[Vec<f32>],
) -> Vec<f32> {
    let mut installed = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (device, packed) = device(&mut installed);
    let Matrix { ggml_type, columns, rows, .. } = experts[0];
    let mut weights = Tensors::new();
    let matrices = weights.tensor(ggml_type, [columns, rows, experts.len()]);
    weights.allocate(packed);
    let plain: Vec<u8> = experts.iter().flat_map(|expert| expert.plain.clone()).collect();
    set(matrices, &plain);
    let mut computed = Tensors::new();
    let context = computed.context.as_ptr();
    let tokens = ids.map_or(vectors.len(), |ids| ids.len() / used);
    let shape = [columns, vectors.len() / tokens, tokens];
    let shape = if ids.is_some() { shape } else { [columns, tokens, 1] };
    let input = computed.tensor(GGML_TYPE_F32, shape);
    let chosen = computed.tensor(GGML_TYPE_I32, [used, tokens, 1]);
    // SAFETY: the tensors are of valid contexts, and the types and shapes fit.
    let result = unsafe {
        match ids {
            Some(_) => ggml_mul_mat_id(context, matrices, input, chosen),
            None => ggml_mul_mat(context, matrices, input),
        }
    };
    // SAFETY: ggml's own buffer type.
    computed.allocate(unsafe { ggml_backend_cpu_buffer_type() });
    set(input, &vectors.concat());
    if let Some(ids) = ids {
        set(chosen, ids);
    }
    // SAFETY: all tensors are allocated and set.
    unsafe {
        assert!(ggml_backend_dev_supports_op(device, result));
        let graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, result);
        let backend = ggml_backend_dev_init(device, ptr::null());
        let status = ggml_backend_graph_compute(backend, graph);
        ggml_backend_free(backend);
        assert_eq!(status, GGML_STATUS_SUCCESS);
        let mut out = vec![f32::NAN; ggml_nbytes(result) / size_of::<f32>()];
        ggml_backend_tensor_get(result, out.as_mut_ptr().cast(), 0, ggml_nbytes(result));
        out
    }
}

/// Whether `products` are those of `matrix` with `vector`.
fn are_products(matrix: &Matrix, vector: &[f32], products: &[f32]) -> bool {
    products.iter().enumerate().all(|(row, &product)| {
        let (exact, magnitude) = matrix.exactly(vector, row);
        (f64::from(product) - exact).abs() <= magnitude * 2e-5 + 1e-3
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_graphs_products_are_right(
        matrix in matrices(),
        count in 1..40_usize,
        noise in prop::collection::vec(any::<i8>(), 331),
    ) {
        prop_assume!(registered() && find(matrix.ggml_type()).is_some());
        let vectors = vectors(matrix.columns, count, &noise);
        let rows = matrix.rows;
        let matrix = [matrix];
        let products = evaluate(&matrix, None, 1, &vectors);
        for (vector, products) in vectors.iter().zip(products.chunks(rows)) {
            prop_assert!(are_products(&matrix[0], vector, products));
        }
    }

    #[test]
    fn each_tokens_vectors_meet_its_own_experts(
        (which, blocks, rows) in (0..TYPES.len(), 1..3_usize, ROWS..5 * ROWS),
        (total, used, tokens) in (1..9_usize).prop_flat_map(|total| (Just(total), 1..=total, 1..30_usize)),
        one_for_all in any::<bool>(),
        noise in prop::collection::vec(any::<u8>(), 997),
        numbers in prop::collection::vec(any::<i8>(), 331),
        shuffles in prop::collection::vec(0..1000_usize, 37),
    ) {
        prop_assume!(registered());
        let noise_of = |expert: usize| [&noise[17 * expert..], &noise[..17 * expert]].concat();
        let experts: Vec<Matrix> =
            (0..total).map(|expert| matrix(which, blocks, rows, &noise_of(expert))).collect();
        prop_assume!(find(experts[0].ggml_type()).is_some());
        // Different ones for each token, with some experts more popular than others.
        let ids: Vec<i32> = (0..tokens)
            .flat_map(|token| {
                let start = shuffles[token % shuffles.len()] % total;
                (0..used).map(move |number| i32::try_from((start + number) % total).unwrap())
            })
            .collect();
        let each = if one_for_all { 1 } else { used };
        let vectors = vectors(experts[0].columns, tokens * each, &numbers);
        let products = evaluate(&experts, Some(&ids), used, &vectors);
        prop_assert_eq!(products.len(), ids.len() * experts[0].rows);
        for (pair, products) in products.chunks(experts[0].rows).enumerate() {
            let vector = &vectors[pair / used * each + pair % used % each];
            let expert = usize::try_from(ids[pair]).unwrap();
            prop_assert!(are_products(&experts[expert], vector, products), "pair {pair}");
        }
    }
}
