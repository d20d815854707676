//! Optimizers: a quadratic falls, frozen parameters stay, and the state survives a checkpoint to the last bit.

use easytransfer::plugin::{
    Buffer, ComponentRef, DType, Init, LoadedOptimizer, Param, Params, Stream, Tensor,
};

use crate::defaults;
use crate::inputs::{no_panic, number, tensor, values};
use crate::report::{Checks, Outcome, failed, skipped};

const RATE: f64 = 0.02;

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("a quadratic falls", || {
        let mut trial = Trial::new(component)?;
        let before = trial.height()?;
        trial.steps(0, 200)?;
        let after = trial.height()?;
        if after < 0.5 * before {
            Ok(())
        } else {
            failed(format!("from {before} to {after} in 200 steps"))
        }
    });
    checks.check("frozen parameters stay as they are", || {
        let mut trial = Trial::new(component)?;
        let before = values(&trial.frozen.tensor()?)?;
        trial.steps(0, 3)?;
        if values(&trial.frozen.tensor()?)? == before { Ok(()) } else { failed("they changed") }
    });
    checks.check("state saved and loaded goes on with the same bits", || {
        let mut whole = Trial::new(component)?;
        whole.steps(0, 3)?;
        let (params, state) = (whole.params.snapshot()?, whole.save()?);
        whole.steps(3, 3)?;
        let mut second = Trial::new(component)?;
        second.params.restore(&params)?;
        second.optimizer.load(&mut Stream::reader(&state)?)?;
        second.steps(3, 3)?;
        if whole.params.snapshot()?.as_slice() == second.params.snapshot()?.as_slice() {
            Ok(())
        } else {
            failed("the parameters differ")
        }
    });
    checks.check("a state that was cut off is refused", || {
        let mut trial = Trial::new(component)?;
        trial.steps(0, 2)?;
        let state = trial.save()?;
        if state.is_empty() {
            return skipped("it has no state");
        }
        let result = trial.optimizer.load(&mut Stream::reader(&state[..state.len() / 2])?);
        match result {
            Ok(()) => failed("half of the state was accepted"),
            result => no_panic(result),
        }
    });
    checks.check("a step without gradients leaves finite numbers", || {
        let mut trial = Trial::new(component)?;
        trial.params.zero_grads();
        no_panic(trial.optimizer.step(&mut trial.params, RATE, 1))?;
        match trial.height()?.is_finite() {
            true => Ok(()),
            false => failed("found numbers that are not finite"),
        }
    });
}

/// Two parameters that move towards fixed targets, and one that is frozen.
struct Trial {
    optimizer: LoadedOptimizer,
    params: Params,
    moving: [Param; 2],
    frozen: Param,
}

impl Trial {
    fn new(component: &ComponentRef) -> Outcome<Self> {
        let mut params = Params::new(0)?;
        let root = params.root()?;
        let moving =
            [root.param("matrix", &[3, 4], Init::Zeros)?, root.param("vector", &[5], Init::Zeros)?];
        let frozen = root.param("frozen", &[2], Init::Zeros)?;
        for (at, param) in moving.iter().chain([&frozen]).enumerate() {
            let start: Vec<f64> = (0..param.len()).map(|i| number(i + 20 * at)).collect();
            param.assign(&tensor(&start, param.shape(), DType::F32)?)?;
        }
        frozen.set_trainable(false)?;
        params.seal()?;
        let optimizer = LoadedOptimizer::create(component, &defaults(component)?, &params)?;
        Ok(Self { optimizer, params, moving, frozen })
    }

    /// Differences to the targets.
    fn differences(&self) -> Outcome<Vec<Tensor>> {
        let mut all = Vec::new();
        for (at, param) in self.moving.iter().enumerate() {
            let target: Vec<f64> = (0..param.len()).map(|i| 0.3 * number(i + 90 + at)).collect();
            let target = tensor(&target, param.shape(), DType::F32)?;
            all.push(param.tensor()?.detach()?.sub(&target)?);
        }
        Ok(all)
    }

    /// Half the squared distance to the targets.
    fn height(&self) -> Outcome<f64> {
        let mut sum = 0.0;
        for difference in self.differences()? {
            sum += values(&difference)?.iter().map(|x| 0.5 * x * x).sum::<f64>();
        }
        Ok(sum)
    }

    fn steps(&mut self, done: u64, count: u64) -> Outcome {
        for step in done + 1..=done + count {
            self.params.zero_grads();
            for (param, difference) in self.moving.iter().zip(self.differences()?) {
                param.set_grad(&difference)?;
            }
            self.optimizer.step(&mut self.params, RATE, step)?;
        }
        Ok(())
    }

    fn save(&mut self) -> Outcome<Vec<u8>> {
        let mut stream = Stream::writer()?;
        self.optimizer.save(&mut stream)?;
        let bytes: Buffer = stream.bytes()?;
        Ok(bytes.as_slice().to_vec())
    }
}
