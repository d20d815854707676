//! Too little memory on a card: an error that says who holds it, after which the card still computes.

use easytransfer::Tensor;
use easytransfer::plugin::{Activation, Cuda, Result, abi, nn};

/// Runs all checks; answers how many failed. The host's memory is not tried.
pub fn run() -> Result<usize> {
    if Cuda::find().is_none() {
        return Ok(0);
    }
    let mut failed = 0;
    let mut check = |name: &str, good: bool, text: &str| {
        println!("{} {name}: {text}", if good { "ok    " } else { "FAILED" });
        failed += usize::from(!good);
    };
    let ones = |len: usize| Tensor::from_slice(&vec![1f32; len], &[len, 1]);
    let product = |len: usize| -> Result<Tensor> {
        let x = ones(len)?;
        nn::linear(&x, &x, None, Activation::None)
    };
    // 4 TiB.
    match product(1 << 20) {
        Ok(_) => check("more than the card has", false, "there was room"),
        Err(error) => {
            let text = error.to_string();
            let named = ["parameters hold", "optimizer states", "cache", "smaller batches"];
            let good = error.code() == abi::ET_ERR_OUT_OF_MEMORY
                && named.iter().all(|needle| text.contains(needle));
            check("more than the card has", good, &text);
        }
    }
    let sum = product(64)?.sum(&[], false)?.to_scalar()?;
    check("what fits afterwards", sum == 4096.0, &sum.to_string());
    Ok(failed)
}
