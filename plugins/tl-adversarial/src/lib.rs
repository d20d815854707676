//! Domain-adversarial training (Ganin et al. 2016): a critic learns to tell the domains of the data apart by the
//! features of the model, whose gradient it gets reversed, so that the features come to fit all domains alike.
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    Activation, Error, Linear, LinearConfig, MODEL, Map, ModuleSpec, Phases, Pool, Result, Session,
    SourceInfo, Strategy, Stream, Tensor, abi, nn, out_of_range,
};
use serde::Deserialize;
use serde_json::json;
use std::ffi::CStr;

/// Name of the critic's parameters in the session.
const CRITIC: &str = "critic";

/// Options of [`Adversarial`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    weight: f64,
    ramp: f64,
    reversal: bool,
    hidden: usize,
    critic_optimizer: String,
    critic_lr: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            weight: 1.0,
            ramp: 10.0,
            reversal: true,
            hidden: 64,
            critic_optimizer: "adamw".to_owned(),
            critic_lr: 1e-3,
        }
    }
}

/// Trains on the run's own data while a critic tells it from the other sources of the run (`source.NAME`), which need
/// no labels (`source.NAME.labelled=false`). Sources of one `domain` are one class of the critic.
///
/// The model's gradient from the critic is that of the critic's loss times -lambda, with lambda = weight *
/// (2 / (1 + exp(-ramp * p)) - 1) at part p of the run.
pub struct Adversarial {
    options: Options,
    critic: Option<[Linear; 2]>,
    /// Running mean of the critic's accuracy, balanced over the two batches of a step.
    accuracy: f64,
}

/// A step's part of the running mean.
const SMOOTHING: f64 = 0.05;

impl Strategy for Adversarial {
    const NAME: &'static CStr = c"adversarial";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"weight":{"type":"number","minimum":0,"default":1,"description":"factor on the reversed gradient at the end of the run"},
"ramp":{"type":"number","minimum":0,"default":10,"description":"how fast the factor rises; 0 for the full factor from the start"},
"reversal":{"type":"boolean","default":true,"description":"without it the critic learns beside the model, which does not hear of it"},
"hidden":{"type":"integer","minimum":1,"default":64,"description":"width of the critic's hidden layer"},
"critic_optimizer":{"type":"string","default":"adamw"},
"critic_lr":{"type":"number","exclusiveMinimum":0,"default":0.001,"description":"the critic's learning rate"}}}"#;
    type Options = Options;

    fn new(options: Options) -> Result<Self> {
        for (name, value) in [("weight", options.weight), ("ramp", options.ramp)] {
            if value.is_nan() || value < 0.0 {
                return Err(out_of_range(name, "0 or more", value));
            }
        }
        if options.critic_lr <= 0.0 {
            return Err(out_of_range("critic_lr", "more than 0", options.critic_lr));
        }
        Ok(Self { options, critic: None, accuracy: 0.5 })
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::FIT
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        let said = session.describe(MODEL)?;
        let Some(width) = said["model"]["hidden_size"].as_u64() else {
            return Err(Error::invalid("adversarial: the model says no hidden_size"));
        };
        let scope = session.module(CRITIC, &ModuleSpec::default())?;
        // As many classes as a run can have sources; those that there are none of stay unused.
        let hidden = LinearConfig::new(width as usize, self.options.hidden);
        let output = LinearConfig::new(self.options.hidden, MOST_DOMAINS);
        self.critic =
            Some([hidden.init(&scope.child("hidden")?)?, output.init(&scope.child("output")?)?]);
        Ok(())
    }

    fn fit(&mut self, session: &mut Session<'_>) -> Result<()> {
        let domains = Domains::new(&session.sources()?)?;
        let options = json!({"weight_decay": 0.0});
        let optimizer = session.optimizer(&self.options.critic_optimizer, &options, CRITIC)?;
        let others: Vec<&str> = domains.others.iter().map(|(name, ..)| name.as_str()).collect();
        loop {
            let part = session.step() as f64 / session.total_steps().max(1) as f64;
            let own = session.next_batch("train")?;
            let outputs = session.forward(MODEL, &own, true, 0)?;
            let loss = session.loss(&outputs, &own)?;
            let foreign = session.draw_batch(&others, None)?;
            let foreign_outputs = session.forward(MODEL, &foreign, true, 0)?;
            let heard = [
                self.judge(&own, &outputs, domains.of_train, part)?,
                self.judge(&foreign, &foreign_outputs, domains.of(&foreign)?, part)?,
            ];
            let critic_loss = heard[0].loss.add(&heard[1].loss)?.affine(0.5, 0.0)?;
            session.backward(&loss.add(&critic_loss)?)?;
            session.own_optimizer_step(session.lr())?;
            session.optimizer_step(optimizer, self.options.critic_lr)?;

            let accuracy = (heard[0].accuracy + heard[1].accuracy) / 2.0;
            self.accuracy += SMOOTHING * (accuracy - self.accuracy);
            let figures = [
                ("loss", loss.to_scalar()?),
                ("critic/loss", critic_loss.to_scalar()?),
                ("critic/accuracy", self.accuracy),
                ("critic/factor", self.factor(part)),
            ];
            if !session.commit(&figures, |stream| self.save(stream))? {
                return Ok(());
            }
        }
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        stream.write(&self.accuracy.to_le_bytes())
    }

    fn load(&mut self, stream: &mut Stream) -> Result<()> {
        let mut bytes = [0; 8];
        stream.read(&mut bytes)?;
        self.accuracy = f64::from_le_bytes(bytes);
        Ok(())
    }
}

/// Classes of the critic.
const MOST_DOMAINS: usize = 64;

/// What the critic says of a batch.
struct Judgement {
    loss: Tensor,
    accuracy: f64,
}

impl Adversarial {
    /// Lambda at a part of the run.
    fn factor(&self, part: f64) -> f64 {
        let Options { weight, ramp, .. } = self.options;
        if ramp == 0.0 { weight } else { weight * (2.0 / (1.0 + (-ramp * part).exp()) - 1.0) }
    }

    /// The critic on the mean vectors of a batch, all of whose rows are of one domain.
    fn judge(&self, batch: &Map, outputs: &Map, domain: i64, part: f64) -> Result<Judgement> {
        let Some([hidden, output]) = &self.critic else {
            return Err(Error::new(abi::ET_ERR_FAILED_PRECONDITION, "adversarial: not set up"));
        };
        let vectors = nn::pool(&outputs.get("last")?, &batch.get("starts")?, Pool::Mean)?;
        let vectors = if self.options.reversal {
            vectors.scale_grad(-self.factor(part))?
        } else {
            vectors.detach()?
        };
        let logits =
            output.forward(&hidden.forward(&vectors, Activation::Relu)?, Activation::None)?;
        let rows = logits.extent(0)?;
        let labels = vec![domain; rows];
        let loss =
            nn::cross_entropy(&logits, &Tensor::from_slice(&labels, &[rows])?, None, -100, 0.0)?;
        let right = logits.argmax(1)?.to_vec::<i64>()?.iter().filter(|&&of| of == domain).count();
        Ok(Judgement { loss, accuracy: right as f64 / rows.max(1) as f64 })
    }
}

/// The classes of the critic by the numbers of the sources.
struct Domains {
    of_train: i64,
    /// Name, number and class of every source but the run's own.
    others: Vec<(String, i64, i64)>,
}

impl Domains {
    /// Errors: no source besides the run's own; all of one domain.
    fn new(sources: &[SourceInfo]) -> Result<Self> {
        let mut names: Vec<&str> = Vec::new();
        let mut classes = Vec::new();
        for source in sources {
            let domain = if source.domain.is_empty() { &source.name } else { &source.domain };
            let class = names.iter().position(|known| known == domain).unwrap_or(names.len());
            if class == names.len() {
                names.push(domain);
            }
            classes.push(class as i64);
        }
        let numbered = sources.iter().zip(classes).enumerate();
        let (mut of_train, mut others) = (0, Vec::new());
        for (number, (source, class)) in numbered {
            match source.name.as_str() {
                "train" => of_train = class,
                "valid" => {}
                name => others.push((name.to_owned(), number as i64, class)),
            }
        }
        if others.iter().all(|(.., class)| *class == of_train) {
            return Err(Error::bad_input(
                "adversarial: expected a source of another domain than the training data, found none; name one under source.NAME.path",
            ));
        }
        Ok(Self { of_train, others })
    }

    /// The class of a batch of one of the others.
    fn of(&self, batch: &Map) -> Result<i64> {
        let number = batch.get("source")?.to_vec::<i64>()?.first().copied();
        let found = self.others.iter().find(|(_, known, _)| Some(*known) == number);
        found.map(|(.., class)| *class).ok_or_else(|| {
            Error::invalid(format!(
                "adversarial: a batch of source {number:?}, which is none of its own"
            ))
        })
    }
}

easytransfer_plugin::export! {
    id: "tl-adversarial",
    strategies: [Adversarial],
}
