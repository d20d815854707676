//! Initial values of parameters: functions of the set's seed and the parameter's name, so that the order of
//! declarations and the number of threads do not matter.

use easytransfer_abi::{
    ET_INIT_CONSTANT, ET_INIT_KAIMING_UNIFORM, ET_INIT_NORMAL, ET_INIT_TRUNCATED_NORMAL,
    ET_INIT_UNIFORM, ET_INIT_XAVIER_UNIFORM, ET_INIT_ZEROS, et_init,
};

use crate::error::{Result, fail};
use crate::kernels::Float;
use crate::kernels::philox::Counter;
use crate::rng::{self, Spread};

/// The 64 bit FNV-1a hash (Fowler, Noll, Vo); here it turns a name into a stream number.
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Refuses unknown kinds and numbers that make no sense.
pub fn check(init: &et_init) -> Result<()> {
    let et_init { kind, a, b, .. } = *init;
    let fits = match kind {
        ET_INIT_ZEROS | ET_INIT_XAVIER_UNIFORM | ET_INIT_KAIMING_UNIFORM => true,
        ET_INIT_CONSTANT => !a.is_nan(),
        ET_INIT_NORMAL | ET_INIT_TRUNCATED_NORMAL => a.is_finite() && b.is_finite() && b >= 0.0,
        ET_INIT_UNIFORM => a.is_finite() && b.is_finite() && a <= b,
        _ => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{kind} is no way to start a parameter, expected an ET_INIT_ constant"
        ),
    };
    if !fits {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "the numbers {a} and {b} do not fit the start of kind {kind}"
        );
    }
    Ok(())
}

/// Numbers of inputs and outputs of one unit: for a weight [o, i, k ..] i * k and o * k, for a vector its length
/// twice.
fn fans(shape: &[usize]) -> (f64, f64) {
    match shape {
        [] => (1.0, 1.0),
        [n] => (*n as f64, *n as f64),
        [outputs, inputs, kernel @ ..] => {
            let field = kernel.iter().product::<usize>() as f64;
            (*inputs as f64 * field, *outputs as f64 * field)
        }
    }
}

/// Writes the initial values of a parameter. `init` has passed [`check`].
pub fn fill<F: Float>(init: &et_init, seed: u64, name: &str, shape: &[usize], out: &mut [F]) {
    let counter = Counter::new(seed, fnv1a64(name.as_bytes()), 0);
    let symmetric = |bound: f64| {
        // No inputs, no values: any bound does.
        let bound = if bound.is_finite() { bound } else { 0.0 };
        Spread::Uniform { low: -bound, high: bound }
    };
    let (inputs, outputs) = fans(shape);
    let spread = match init.kind {
        ET_INIT_CONSTANT => return out.fill(F::from_f64(init.a)),
        ET_INIT_NORMAL => Spread::Normal { mean: init.a, deviation: init.b },
        ET_INIT_TRUNCATED_NORMAL => return truncated(counter, init.a, init.b, out),
        ET_INIT_UNIFORM => Spread::Uniform { low: init.a, high: init.b },
        ET_INIT_XAVIER_UNIFORM => symmetric((6.0 / (inputs + outputs)).sqrt()),
        ET_INIT_KAIMING_UNIFORM => symmetric((1.0 / inputs).sqrt()),
        _ => return out.fill(F::ZERO),
    };
    rng::fill(counter, spread, out);
}

/// Normal numbers; those outside two deviations are drawn again, all together, from further on in the stream.
fn truncated<F: Float>(counter: Counter, mean: f64, deviation: f64, out: &mut [F]) {
    let standard = Spread::Normal { mean: 0.0, deviation: 1.0 };
    let outside = |x: F| x.to_f64().abs() > 2.0;
    rng::fill(counter, standard, out);
    let mut counter = counter.skip((out.len() as u64).next_multiple_of(4));
    let mut open: Vec<usize> = (0..out.len()).filter(|&i| outside(out[i])).collect();
    while !open.is_empty() {
        let mut again = vec![F::ZERO; open.len()];
        rng::fill(counter, standard, &mut again);
        counter = counter.skip((open.len() as u64).next_multiple_of(4));
        for (&i, x) in open.iter().zip(again) {
            out[i] = x;
        }
        open.retain(|&i| outside(out[i]));
    }
    for x in out {
        *x = F::from_f64(mean + deviation * x.to_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: i32, a: f64, b: f64, shape: &[usize]) -> Vec<f32> {
        let mut out = vec![9.0; shape.iter().product()];
        let init = et_init { kind, reserved: 0, a, b };
        check(&init).unwrap();
        fill(&init, 42, "encoder.weight", shape, &mut out);
        out
    }

    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(fnv1a64(b""), 0xcbf29ce484222325);
        assert_eq!(fnv1a64(b"foobar"), 0x85944171f73967e8);
    }

    #[test]
    fn bounds_and_moments_are_as_documented() {
        let x = values(ET_INIT_XAVIER_UNIFORM, 0.0, 0.0, &[40, 60]);
        let bound = (6.0f32 / 100.0).sqrt();
        let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
        assert!(largest <= bound && largest > 0.98 * bound);
        let x = values(ET_INIT_KAIMING_UNIFORM, 0.0, 0.0, &[8, 4, 3]);
        assert!(x.iter().all(|x| x.abs() <= (1.0f32 / 12.0).sqrt()));
        let x = values(ET_INIT_TRUNCATED_NORMAL, 1.0, 0.02, &[200, 200]);
        assert!(x.iter().all(|x| (x - 1.0).abs() <= 0.0401));
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64;
        let variance =
            x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / x.len() as f64;
        // A normal cut at two deviations has 0.8796 of the deviation.
        assert!((mean - 1.0).abs() < 5e-4 && (variance.sqrt() - 0.8796 * 0.02).abs() < 2e-4);
        assert_eq!(values(ET_INIT_CONSTANT, 3.0, 0.0, &[2]), [3.0, 3.0]);
        assert_eq!(values(ET_INIT_ZEROS, 0.0, 0.0, &[2]), [0.0, 0.0]);
        assert_eq!(values(ET_INIT_KAIMING_UNIFORM, 0.0, 0.0, &[3, 0]), [0f32; 0]);
    }

    #[test]
    fn names_and_seeds_give_different_numbers() {
        let draw = |seed, name: &str| {
            let mut out = [0f32; 8];
            let init = et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 1.0 };
            fill(&init, seed, name, &[8], &mut out);
            out
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }

    #[test]
    fn senseless_starts_are_refused() {
        for (kind, a, b) in
            [(99, 0.0, 0.0), (ET_INIT_NORMAL, 0.0, -1.0), (ET_INIT_UNIFORM, 1.0, 0.0)]
        {
            assert!(check(&et_init { kind, reserved: 0, a, b }).is_err());
        }
    }
}
