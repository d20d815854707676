//! Whose fault it is: when a loss is no number, or refuses what the network made, the message names the component
//! from which it came. Nothing here runs in a step that goes well.

use easytransfer_plugin::{
    DType, Error as PluginError, LoadedOptimizer, LoadedStrategy, Map, Params, Tensor, abi,
};

use crate::error::{Error, Result};
use crate::model::network::Network;
use crate::run::fit::Fit;

/// What a strategy has added in a step.
pub(super) struct Added {
    /// Which of the run's strategies.
    pub strategy: usize,
    /// The number of losses after it, without the run's own.
    pub until: usize,
}

/// Whether a tensor of reals holds a number that is none. What cannot be read is taken for good.
fn is_broken(tensor: &Tensor) -> bool {
    match tensor.dtype() {
        DType::F32 => tensor.to_vec::<f32>().is_ok_and(|all| all.iter().any(|v| !v.is_finite())),
        DType::F64 => tensor.to_vec::<f64>().is_ok_and(|all| all.iter().any(|v| !v.is_finite())),
        _ => false,
    }
}

fn broken_params(params: &Params) -> Vec<String> {
    let broken = |param: &easytransfer_plugin::Param| param.tensor().is_ok_and(|t| is_broken(&t));
    params.iter().filter(broken).map(|param| param.name()).collect()
}

/// The first few of some names.
fn few(names: &[String]) -> String {
    let shown = names.iter().take(3).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > 3 { format!("{shown} and {} more", names.len() - 3) } else { shown }
}

/// A loss that is no number, before its gradients spoil the parameters. `losses` are all of the step, the run's own
/// first; `combined` says which strategy joined them, if one did.
pub(super) fn of_loss(
    fit: &Fit<'_>,
    outputs: &Map,
    losses: &[(String, Tensor, f64)],
    added: &[Added],
    combined: Option<usize>,
    (strategies, optimizer): (&[LoadedStrategy], &LoadedOptimizer),
) -> Error {
    let step = fit.step + 1;
    let Network { model, app, params, .. } = &fit.network;
    let cause = || {
        let params = broken_params(params);
        if !params.is_empty() {
            return format!(
                "the parameters {} are no numbers any more, since a step of {} or the gradients that it got",
                few(&params),
                optimizer.who()
            );
        }
        let mut names = outputs.names();
        names.retain(|name| outputs.get(name).is_ok_and(|tensor| is_broken(&tensor)));
        if !names.is_empty() {
            let made =
                if names.iter().any(|name| ["last", "pooled", "first"].contains(&name.as_str())) {
                    model.who().to_owned()
                } else {
                    format!("{} over {}", app.who(), model.who())
                };
            return format!("the outputs {} of {made} are no numbers: forward", few(&names));
        }
        let mut losses = losses.iter().enumerate();
        let broken = losses.find(|(_, (_, value, _))| is_broken(value));
        match (broken, combined) {
            (Some((0, _)), _) => format!("{}: forward: not a finite number", fit.loss.who()),
            (Some((place, (name, ..))), _) => {
                let who = added.iter().find(|strategy| place <= strategy.until);
                let who = who.map_or("a strategy", |added| strategies[added.strategy].who());
                format!("{who}: on_outputs: its loss {name:?} is not a finite number")
            }
            (None, Some(place)) => {
                format!("{}: combine: not a finite number", strategies[place].who())
            }
            (None, None) => "the sum of the losses is beyond f32".to_owned(),
        }
    };
    Error::other(format!(
        "step {step}: the loss is not a finite number; {}; use a smaller learning rate (lr is {}) if the components are right",
        cause(),
        fit.lr
    ))
}

/// The error of a component that takes outputs and a batch; for one about shapes it says who made them.
pub fn with_shapes(error: PluginError, network: &Network, outputs: &Map, batch: &Map) -> Error {
    if ![abi::ET_ERR_SHAPE, abi::ET_ERR_DTYPE, abi::ET_ERR_NOT_FOUND].contains(&error.code()) {
        return error.into();
    }
    let shapes = |map: &Map| -> String {
        let of = |name: String| Some(format!("{name} {:?}", map.get(&name).ok()?.shape()));
        map.names().into_iter().filter_map(of).collect::<Vec<_>>().join(", ")
    };
    let (app, model) = (network.app.who(), network.model.who());
    let made = format!("{app} over {model} made the outputs {}", shapes(outputs));
    let text = format!("{}; {made}; the batch has {}", error.message(), shapes(batch));
    PluginError::new(error.code(), text).into()
}

/// The value of a scalar, or an error of whoever reads it.
pub fn is_finite(loss: &Tensor) -> Result<bool> {
    Ok(loss.to_scalar()?.is_finite())
}
