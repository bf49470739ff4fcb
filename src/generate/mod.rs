//! Prompt in, text deltas out: the one place where engine, sampler and text meet.

mod constrained;
mod driver;
mod kept;
mod lookup;
mod model;
mod prompt;
mod queue;
mod request;
mod scheduler;
mod score;
mod session;
mod steps;
mod stream;

pub use constrained::token_table;
pub use driver::{Awaited, Driver, Given};
pub use kept::Pin;
pub use lookup::{MAX_GUESS, Speculation};
pub use model::{LoadOptions, Model, Work};
pub use prompt::Prompt;
pub use request::{BadWord, Request};
pub use scheduler::{Load, reentered};
pub use stream::{FinishReason, Processor, StopReason, Stream, Timings, Token, Usage};
