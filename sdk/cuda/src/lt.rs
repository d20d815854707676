//! Matrix products by cuBLASLt, with what was found out about each shape kept.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use candle_core::{DType, Tensor as Raw};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use super::device::{Precision, engine, failed};
use super::memory::address;
use easytransfer_core::error::{Result, fail};
use easytransfer_core::sync::lock;

/// Bytes that algorithms may use; NVIDIA's advice for Hopper.
pub(super) const WORKSPACE: usize = 32 << 20;

/// Shapes whose plans are kept before all are forgotten; token counts of real batches differ.
const MOST_PLANS: usize = 8192;

/// One product of column-major matrices: out [m, n] = (add ? out : 0) + op(a) op(b) (+ bias [m]), with f32 sums.
pub(super) struct Product<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// [m, k], or [k, m] when `transpose_a`; the extent of its columns in memory is its first one.
    pub a: &'a Raw,
    pub transpose_a: bool,
    /// [k, n], or [n, k] when `transpose_b`.
    pub b: &'a Raw,
    pub transpose_b: bool,
    /// Of the type of `out`.
    pub bias: Option<&'a Raw>,
    /// f32, or of the operands' type.
    pub out: &'a Raw,
    pub add: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    extents: [usize; 3],
    transposed: [bool; 2],
    dtype: DType,
    out: DType,
    bias: bool,
    /// Common alignment of the three addresses, which algorithms depend on.
    alignment: u32,
}

struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the descriptors were made with the plan and are not used again. An error leaves nothing to do.
        unsafe {
            let _ = result::destroy_matmul_desc(self.operation);
            let _ = result::destroy_matrix_layout(self.a);
            let _ = result::destroy_matrix_layout(self.b);
            let _ = result::destroy_matrix_layout(self.out);
        }
    }
}

/// The library's handle and what was planned.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    plans: HashMap<Key, Plan>,
    compute: sys::cublasComputeType_t,
}

// SAFETY: handle and descriptors may be used from any thread, one at a time, which the lock around this sees to.
unsafe impl Send for Products {}

fn data_type(dtype: DType) -> Result<sys::cudaDataType> {
    Ok(match dtype {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        other => fail!(ET_ERR_DTYPE, "no matrix products of type {}", other.as_str()),
    })
}

fn plan_error(error: impl std::fmt::Debug) -> easytransfer_core::error::Error {
    failed("plan a matrix product", error)
}

impl Products {
    pub fn new(stream: &Arc<CudaStream>, precision: Precision) -> Result<Self> {
        let handle = result::create_handle().map_err(|error| failed("start cuBLASLt", error))?;
        // SAFETY: the workspace holds no values of ours; algorithms write before they read.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }
            .map_err(|error| failed("allocate cuBLASLt's workspace", error))?;
        let compute = match precision {
            Precision::Tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        Ok(Self { handle, workspace, plans: HashMap::new(), compute })
    }

    fn plan(&self, key: Key) -> Result<Plan> {
        let [m, n, k] = key.extents.map(|extent| extent as u64);
        let [ta, tb] = key.transposed;
        let (dtype, float) = (data_type(key.dtype)?, sys::cudaDataType_t::CUDA_R_32F);
        let result_type = data_type(key.out)?;
        let (rows_a, cols_a) = if ta { (k, m) } else { (m, k) };
        let (rows_b, cols_b) = if tb { (n, k) } else { (k, n) };
        let layout = |dtype, rows: u64, cols: u64| {
            result::create_matrix_layout(dtype, rows, cols, rows as i64).map_err(plan_error)
        };
        let mut plan = Plan {
            operation: result::create_matmul_desc(self.compute, float).map_err(plan_error)?,
            a: layout(dtype, rows_a, cols_a)?,
            b: layout(dtype, rows_b, cols_b)?,
            out: layout(result_type, m, n)?,
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let epilogue = if key.bias {
            sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS
        } else {
            sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT
        };
        self.set(&plan, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(ta))?;
        self.set(&plan, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(tb))?;
        self.set(&plan, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        if key.bias {
            self.set(&plan, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &result_type)?;
            // The heuristic wants to see a bias; the address is set for every product.
            let anything: u64 = 256;
            self.set(&plan, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &anything)?;
        }
        let preference = result::create_matmul_pref().map_err(plan_error)?;
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let found = (|| {
            // SAFETY: the preference lives until below; every value has the size that is given.
            unsafe {
                let set = |wish, value: *const c_void, size| {
                    result::set_matmul_pref_attribute(preference, wish, value, size)
                };
                let workspace = WORKSPACE as u64;
                set(
                    Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                    (&raw const workspace).cast(),
                    8,
                )?;
                for wish in [
                    Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                    Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                    Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                    Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                ] {
                    set(wish, (&raw const key.alignment).cast(), 4)?;
                }
                result::get_matmul_algo_heuristic(
                    self.handle,
                    plan.operation,
                    plan.a,
                    plan.b,
                    plan.out,
                    plan.out,
                    preference,
                )
            }
        })();
        // SAFETY: the preference was made above and is not used again.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        plan.algorithm = found.map_err(plan_error)?.algo;
        Ok(plan)
    }

    fn set<T>(
        &self,
        plan: &Plan,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> Result<()> {
        // SAFETY: the descriptor lives, and the value is copied with its size.
        unsafe {
            result::set_matmul_desc_attribute(
                plan.operation,
                attribute,
                std::ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        }
        .map_err(plan_error)
    }

    fn run(&mut self, product: &Product<'_>) -> Result<()> {
        let engine = engine()?;
        let (a, b) = (address(product.a)?, address(product.b)?);
        let out = address(product.out)?;
        let bias = product.bias.map(address).transpose()?;
        let alignment = 1 << (a | b | out | 256).trailing_zeros();
        let key = Key {
            extents: [product.m, product.n, product.k],
            transposed: [product.transpose_a, product.transpose_b],
            dtype: product.a.dtype(),
            out: product.out.dtype(),
            bias: bias.is_some(),
            alignment,
        };
        engine.context.bind_to_thread().map_err(|error| failed("bind the device", error))?;
        if !self.plans.contains_key(&key) {
            if self.plans.len() >= MOST_PLANS {
                self.plans.clear();
            }
            let plan = self.plan(key).map_err(|error| {
                error.context(format!("product {:?} of {}", key.extents, key.dtype.as_str()))
            })?;
            self.plans.insert(key, plan);
        }
        let plan = &self.plans[&key];
        if let Some(bias) = bias {
            self.set(
                plan,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &bias,
            )?;
        }
        let (alpha, beta) = (1f32, if product.add { 1f32 } else { 0f32 });
        let workspace = self.workspace.device_ptr(&engine.stream).0;
        // SAFETY: the addresses are those of tensors that live until the work is on the stream and have as many
        // elements as the extents say, which the callers see to; alpha and beta are read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a as *const c_void,
                plan.a,
                b as *const c_void,
                plan.b,
                out as *const c_void,
                plan.out,
                out as *mut c_void,
                plan.out,
                &plan.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                engine.stream.cu_stream().cast(),
            )
        }
        .map_err(|error| failed("matrix product", error))
    }
}

impl Product<'_> {
    /// Puts the product on the stream. Tensors are contiguous and have the extents that are named.
    pub fn run(&self) -> Result<()> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        if self.k == 0 {
            // Nothing to sum: cuBLASLt refuses it.
            if !self.add {
                super::memory::clear(self.out)?;
            }
            return Ok(());
        }
        let fits = self.a.elem_count() == self.m * self.k
            && self.b.elem_count() == self.k * self.n
            && self.out.elem_count() == self.m * self.n
            && self.a.dtype() == self.b.dtype()
            && (self.out.dtype() == DType::F32 || self.out.dtype() == self.a.dtype())
            && self.bias.is_none_or(|bias| bias.dtype() == self.out.dtype());
        if !fits {
            fail!(
                ET_ERR_SHAPE,
                "product {} x {} x {}: found {:?} of {}, {:?} of {} and {:?} of {}",
                self.m,
                self.k,
                self.n,
                self.a.dims(),
                self.a.dtype().as_str(),
                self.b.dims(),
                self.b.dtype().as_str(),
                self.out.dims(),
                self.out.dtype().as_str()
            );
        }
        lock(&engine()?.products).run(self)
    }
}
