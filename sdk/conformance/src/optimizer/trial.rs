//! Parameters that an optimizer moves.

use easytransfer::plugin::{
    self, Buffer, ComponentRef, DType, Init, LoadedOptimizer, Param, Params, Stream, Tensor,
};

use crate::inputs::{number, tensor, values};
use crate::report::Outcome;
use crate::schema::defaults;

pub const RATE: f64 = 0.02;

/// Parameters that move towards fixed targets, and one that is frozen.
pub struct Trial {
    pub optimizer: LoadedOptimizer,
    pub params: Params,
    pub moving: Vec<Param>,
    pub frozen: Param,
}

/// A sealed set of one parameter.
pub fn small_set() -> plugin::Result<Params> {
    let mut params = Params::new(0)?;
    params.root()?.param("matrix", &[3, 4], Init::Normal(0.0, 0.1))?;
    params.seal()?;
    Ok(params)
}

impl Trial {
    pub fn new(component: &ComponentRef) -> Outcome<Self> {
        Self::with(component, &defaults(component)?, 5, |_| Ok(()))
    }

    /// With a vector of `len` elements, and parameters that `change` may set otherwise.
    pub fn with(
        component: &ComponentRef,
        options: &str,
        len: usize,
        change: impl FnOnce(&[Param]) -> plugin::Result<()>,
    ) -> Outcome<Self> {
        let mut params = Params::new(0)?;
        let root = params.root()?;
        let moving = vec![
            root.param("matrix", &[3, 4], Init::Zeros)?,
            root.param("vector", &[len], Init::Zeros)?,
        ];
        let frozen = root.param("frozen", &[2], Init::Zeros)?;
        for (at, param) in moving.iter().chain([&frozen]).enumerate() {
            let start: Vec<f64> = (0..param.len()).map(|i| number(i + 20 * at)).collect();
            param.assign(&tensor(&start, param.shape(), DType::F32)?)?;
        }
        frozen.set_trainable(false)?;
        change(&moving)?;
        params.seal()?;
        let optimizer = LoadedOptimizer::create(component, options, &params)?;
        Ok(Self { optimizer, params, moving, frozen })
    }

    /// Differences to the targets.
    pub fn differences(&self) -> Outcome<Vec<Tensor>> {
        let mut all = Vec::new();
        for (at, param) in self.moving.iter().enumerate() {
            let target: Vec<f64> = (0..param.len()).map(|i| 0.3 * number(i + 90 + at)).collect();
            let target = tensor(&target, param.shape(), DType::F32)?;
            all.push(param.tensor()?.detach()?.sub(&target)?);
        }
        Ok(all)
    }

    /// Half the squared distance to the targets.
    pub fn height(&self) -> Outcome<f64> {
        let mut sum = 0.0;
        for difference in self.differences()? {
            sum += values(&difference)?.iter().map(|x| 0.5 * x * x).sum::<f64>();
        }
        Ok(sum)
    }

    /// Gradients of the height, times `scale`.
    pub fn gradients(&mut self, scale: f64) -> Outcome {
        self.params.zero_grads();
        for (param, difference) in self.moving.iter().zip(self.differences()?) {
            param.set_grad(&difference.affine(scale, 0.0)?)?;
        }
        Ok(())
    }

    pub fn steps(&mut self, done: u64, count: u64) -> Outcome {
        for step in done + 1..=done + count {
            self.gradients(1.0)?;
            self.optimizer.step(&mut self.params, RATE, step)?;
        }
        Ok(())
    }

    pub fn save(&mut self) -> Outcome<Vec<u8>> {
        let mut stream = Stream::writer()?;
        self.optimizer.save(&mut stream)?;
        let bytes: Buffer = stream.bytes()?;
        Ok(bytes.as_slice().to_vec())
    }

    /// The values of a parameter.
    pub fn of(param: &Param) -> Outcome<Vec<f64>> {
        Ok(values(&param.tensor()?.detach()?)?)
    }

    /// The values of all parameters.
    pub fn all(&self) -> Outcome<Vec<f64>> {
        let parts: Vec<Vec<f64>> =
            self.params.iter().map(|p| Self::of(&p)).collect::<Outcome<_>>()?;
        Ok(parts.concat())
    }
}
