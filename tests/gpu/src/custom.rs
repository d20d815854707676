//! An operation with code of its own, for the CPU and as PTX for a card: the one that `cargo xtask new-plugin op`
//! starts with.

use std::ffi::CStr;

use easytransfer::Tensor;
use easytransfer::plugin::cuda::{Argument, Cuda, Kernel};
use easytransfer::plugin::{DType, Error, InputView, Op, OutputSpec, OutputView, Result, apply};

use crate::compare::{check, numbers};

const PTX: &str = include_str!("../../../sdk/scaffold/templates/op.ptx");

/// y = x³, elementwise.
struct Cube;

impl Op for Cube {
    const NAME: &'static CStr = c"cube";
    const INPUTS: usize = 1;
    const OUTPUTS: usize = 1;
    const CUDA: bool = true;

    fn infer(&self, inputs: &[OutputSpec]) -> Result<Vec<OutputSpec>> {
        Ok(vec![inputs[0].clone()])
    }

    fn forward(&self, inputs: &[InputView<'_>], outputs: &mut [OutputView<'_>]) -> Result<()> {
        if inputs[0].dtype()? == DType::F32 {
            let pairs = outputs[0].as_mut_slice::<f32>()?.iter_mut().zip(inputs[0].as_slice()?);
            pairs.for_each(|(y, x): (_, &f32)| *y = x * x * x);
        } else {
            let pairs = outputs[0].as_mut_slice::<f64>()?.iter_mut().zip(inputs[0].as_slice()?);
            pairs.for_each(|(y, x): (_, &f64)| *y = x * x * x);
        }
        Ok(())
    }

    fn forward_cuda(
        &self,
        cuda: &Cuda,
        inputs: &[InputView<'_>],
        outputs: &mut [OutputView<'_>],
    ) -> Result<()> {
        if inputs[0].dtype()? != DType::F32 {
            return Err(Error::invalid("cube: expected f32 on a card"));
        }
        let len: usize = inputs[0].shape().iter().product();
        let arguments = [
            Argument::Address(inputs[0].address()?),
            Argument::Address(outputs[0].address()?),
            Argument::U64(len as u64),
        ];
        // SAFETY: the arguments are those of `cube`, which reads and writes `len` elements; both tensors have as many.
        unsafe { cuda.launch(&Kernel::over(PTX, "cube", len, 256), &arguments) }
    }

    fn backward(
        &self,
        inputs: &[&Tensor],
        _: &[&Tensor],
        output_grads: &[Option<&Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let gradient = |dy: &Tensor| inputs[0].sqr()?.affine(3.0, 0.0)?.mul(dy);
        Ok(vec![output_grads[0].map(gradient).transpose()?])
    }
}

static CUBE: Cube = Cube;

/// Runs all checks; answers how many failed.
pub fn run() -> Result<usize> {
    let cube = |x: &[Tensor]| Ok(apply(&CUBE, &[&x[0]])?.swap_remove(0));
    let mut failed = check("custom operation", 1e-5, &[(numbers(1003, 5), vec![17, 59])], &cube)?;
    let nothing = apply(&CUBE, &[&Tensor::from_slice::<f32>(&[], &[0, 3])?])?;
    let good = nothing[0].shape() == [0, 3];
    println!("{} custom operation, nothing", if good { "ok    " } else { "FAILED" });
    failed += usize::from(!good);
    let Some(cuda) = Cuda::find() else { return Ok(failed) };
    // What a plugin may do wrong is an error that says so, and the card still works afterwards.
    for (ptx, name, arguments, needle) in [
        ("no text", "cube", &[][..], "does not compile"),
        (PTX, "cone", &[], "no kernel"),
        (PTX, "cube", &[Argument::U64(1)], "expected 3 arguments, found 1"),
    ] {
        // SAFETY: nothing runs: each is refused.
        let result = unsafe { cuda.launch(&Kernel::over(ptx, name, 1, 32), arguments) };
        let text = result.err().map_or_else(|| "it ran".to_owned(), |error| error.to_string());
        let good = text.contains(needle);
        println!("{} refused: {text}", if good { "ok    " } else { "FAILED" });
        failed += usize::from(!good);
    }
    failed += check("custom operation again", 1e-5, &[(numbers(7, 6), vec![7])], &cube)?;
    Ok(failed)
}
