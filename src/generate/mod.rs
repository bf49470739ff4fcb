//! Prompt in, text deltas out: the one place where engine, sampler and text meet.

mod constrained;
mod kept;
mod lookup;
mod model;
mod prompt;
mod request;
mod session;
mod stream;
mod turn;

pub use constrained::token_table;
pub use kept::Pin;
pub use lookup::{MAX_GUESS, Speculation};
pub use model::{LoadOptions, Model, Work};
pub use prompt::Prompt;
pub use request::Request;
pub use stream::{FinishReason, StopReason, Stream, Timings, Token, Usage};
pub use turn::reentered;
