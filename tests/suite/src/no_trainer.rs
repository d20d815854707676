//! What tests of a strategy's hooks pass in the place of a trainer.

use easytransfer::plugin::{Error, Map, Params, Result, SessionHost, Tensor};
use serde_json::{Map as Json, Value};

/// A trainer without a model: no hook here asks it for anything but the number of steps.
pub struct NoTrainer;

fn absent<T>() -> Result<T> {
    Err(Error::invalid("this trainer has nothing"))
}

impl SessionHost for NoTrainer {
    fn params(&mut self, _: &str) -> Result<&mut Params> {
        absent()
    }
    fn load_model(&mut self, _: &str, _: &str) -> Result<()> {
        absent()
    }
    fn describe(&mut self, _: &str) -> Result<Value> {
        absent()
    }
    fn forward(&mut self, _: &str, _: &Map, _: bool, _: u32) -> Result<Map> {
        absent()
    }
    fn loss(&mut self, _: &Map, _: &Map) -> Result<Tensor> {
        absent()
    }
    fn add_loss(&mut self, _: &str, _: Tensor, _: f64) -> Result<()> {
        absent()
    }
    fn set_loss_weight(&mut self, _: f64) -> Result<()> {
        absent()
    }
    fn want(&mut self, _: u32) -> Result<()> {
        absent()
    }
    fn next_batch(&mut self, _: &str) -> Result<Map> {
        absent()
    }
    fn open_source(&mut self, _: &str, _: &str, _: &str) -> Result<()> {
        absent()
    }
    fn optimizer(&mut self, _: &str, _: &str, _: &Params) -> Result<usize> {
        absent()
    }
    fn optimizer_step(&mut self, _: Option<usize>, _: f64) -> Result<()> {
        absent()
    }
    fn evaluate(&mut self, _: &str, _: &str, _: u64) -> Result<Json<String, Value>> {
        absent()
    }
    fn log_scalar(&mut self, _: &str, _: f64) -> Result<()> {
        absent()
    }
    fn step(&self) -> u64 {
        0
    }
    fn total_steps(&self) -> u64 {
        7
    }
    fn is_cancelled(&self) -> bool {
        false
    }
}
