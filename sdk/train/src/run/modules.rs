//! Networks of strategies' own: named parameter sets, bare, with a model over them, or with the app's head as well.

use std::sync::Arc;

use easytransfer_plugin as plugin;
use easytransfer_plugin::{Call, LoadedModel, MODEL, Map, ModuleSpec, Param, Params, Scope, abi};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::components::Components;
use crate::model::network::{self, AppStage, Network, Origin};
use crate::model::weights::LoadReport;
use crate::options;

/// A module of a strategy.
pub struct StrategyModule {
    /// Its name in the session.
    pub name: String,
    body: Body,
}

enum Body {
    /// Parameters that the strategy uses itself.
    Bare(Params),
    /// A model over them, with its configuration.
    Model(Box<(Params, LoadedModel, Value)>),
    /// A model with the app's head.
    Network(Box<Network>),
}

impl StrategyModule {
    /// Makes a module beside `trained`; `seed` is its own. Errors: an unknown model, a configuration that it refuses,
    /// values to be copied that the model under training lacks.
    pub fn new(
        components: &dyn Components,
        trained: &Network,
        name: &str,
        spec: &ModuleSpec<'_>,
        seed: u64,
    ) -> Result<StrategyModule> {
        let params = Params::new(seed)?;
        if spec.model.is_empty() {
            if spec.head || spec.copy {
                return Err(Error::user(format!(
                    "module {name:?}: a bare set has neither a head nor values to copy; name a model, {MODEL:?} for that of the model under training"
                )));
            }
            return Ok(StrategyModule { name: name.to_owned(), body: Body::Bare(params) });
        }
        let (model_type, config) = if spec.model == MODEL {
            let mut config = trained.config.clone();
            options::merge(&mut config, Value::Object(spec.config.clone()));
            (trained.model_origin.full_name(), config)
        } else {
            (spec.model.to_owned(), Value::Object(spec.config.clone()))
        };
        let component = components.find("et.model/1", &model_type)?;
        let root = params.root()?;
        let model = LoadedModel::create(&component, &config.to_string(), &root)
            .map_err(|error| error.context(format!("module {name:?}")))?;
        let body = if spec.head {
            let state = trained.app.state()?;
            let stage = AppStage::new(
                components,
                &trained.app_origin.full_name(),
                trained.app_options.clone(),
                Some(&state),
            )?;
            let mut app = stage.app;
            let modules = network::modules(&app, &component, &config, &params, false)?;
            app.build(&root, model.info())?;
            Body::Network(Box::new(Network {
                app_info: app.info()?,
                model,
                modules,
                app: Arc::new(app),
                params,
                tokenizer: trained.tokenizer.clone(),
                config,
                model_origin: Origin::from(&component),
                app_origin: stage.origin,
                app_options: stage.options,
                load_report: LoadReport::default(),
                made_with: Vec::new(),
            }))
        } else {
            Body::Model(Box::new((params, model, config)))
        };
        let mut module = StrategyModule { name: name.to_owned(), body };
        if spec.copy {
            module.copy_from(&trained.params)?;
        }
        Ok(module)
    }

    fn copy_from(&mut self, params: &Params) -> Result<()> {
        let name = self.name.clone();
        for own in self.params().iter() {
            let found: Param = params.find(&own.name()).map_err(|error| {
                error.context(format!("module {name:?}: copy the model's values"))
            })?;
            own.assign(&found.tensor()?)?;
        }
        Ok(())
    }

    /// The outermost scope of its parameters.
    pub fn root(&mut self) -> Result<Scope> {
        Ok(self.params().root()?)
    }

    /// Its parameters.
    pub fn params(&mut self) -> &mut Params {
        match &mut self.body {
            Body::Bare(params) => params,
            Body::Model(body) => &mut body.0,
            Body::Network(network) => &mut network.params,
        }
    }

    /// The module with the app's head, if it has one.
    pub fn network(&mut self) -> Option<&mut Network> {
        match &mut self.body {
            Body::Network(network) => Some(network),
            _ => None,
        }
    }

    /// The error for what only a module with a head can do.
    pub fn headless(&self, what: &str) -> Error {
        plugin::Error::new(
            abi::ET_ERR_FAILED_PRECONDITION,
            format!("{what}: module {:?}: expected one with a model and a head", self.name),
        )
        .into()
    }

    /// Outputs on a batch. Errors: a bare set.
    pub fn forward(&mut self, call: &Call<'_>, batch: &Map) -> Result<Map> {
        match &mut self.body {
            Body::Network(network) => network.forward(call, batch),
            Body::Model(body) => {
                let mut outputs = Map::new()?;
                body.1.forward(call, batch, &mut outputs)?;
                Ok(outputs)
            }
            Body::Bare(_) => Err(plugin::Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                format!("forward: module {:?} has parameters only, no model", self.name),
            )
            .into()),
        }
    }

    /// What it says of itself, for reports and strategies.
    pub fn describe(&mut self) -> Value {
        let parameters: usize = self.params().iter().map(|param| param.len()).sum();
        match &self.body {
            Body::Bare(_) => json!({ "parameters": parameters }),
            Body::Model(body) => {
                json!({ "model": body.1.info(), "config": body.2, "parameters": parameters })
            }
            Body::Network(network) => {
                let mut said = network.describe();
                said["parameters"] = json!(parameters);
                said
            }
        }
    }
}
