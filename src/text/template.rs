//! Chat templates: messages to the text of a prompt, with nothing of them lost.
//!
//! A template is compiled at the first call that needs it, so a model whose template is broken still
//! serves prompts that need none. Templates may drop what they have no place for without a word (the
//! first Phi-3 files drop every system message); that is found out by rendering once more with a marker
//! in place of each message's content. A marker rather than the content itself, which may be a word
//! that the template writes anyway. A system message without a place goes before the first user turn;
//! for any other the caller is told. The dialect is that of `dialect.rs`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::{Environment, context};

use super::dialect::{Raised, compile};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::gguf::Metadata;

/// The template of microsoft/Phi-3-mini-4k-instruct, for files that have none.
pub const PHI3_TEMPLATE: &str = "{% for message in messages %}\
    {% if message['role'] in ['system', 'user', 'assistant'] %}\
    {{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}\
    {% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";

/// More than any context holds.
const MAX_PROMPT_BYTES: usize = 64 << 20;

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
    /// The functions that the model may call, as the JSON that its template expects (Phi-4-mini, in the system message).
    pub tools: Option<String>,
}

impl Message {
    /// A message without tools.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            tools: None,
        }
    }
}

/// A chat template, compiled when it is first needed.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
    compiled: OnceLock<Result<Environment<'static>>>,
    warned: AtomicBool,
}

impl ChatTemplate {
    /// A template and the texts of its `bos_token` and `eos_token`. It is not compiled yet: a broken
    /// one is an error of [`Self::render`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Self {
        Self {
            source: source.to_string(),
            bos: bos.to_string(),
            eos: eos.to_string(),
            compiled: OnceLock::new(),
            warned: AtomicBool::new(false),
        }
    }

    /// The template of a model: the file's, or [`PHI3_TEMPLATE`] where the vocabulary has its tokens;
    /// none for a model that was not taught to chat.
    pub fn from_gguf(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let source = metadata.str("tokenizer.chat_template")?;
        let is_phi3 = ["<|user|>", "<|assistant|>", "<|end|>"]
            .iter()
            .all(|piece| tokenizer.token_id(piece).is_some());
        let Some(source) = source.or(is_phi3.then_some(PHI3_TEMPLATE)) else {
            return Ok(None);
        };
        let bos = tokenizer.bos().and_then(|id| tokenizer.piece(id));
        let eos = metadata.u32("tokenizer.ggml.eos_token_id")?;
        let eos = eos.and_then(|id| tokenizer.piece(id));
        Ok(Some(Self::new(
            source,
            bos.unwrap_or_default(),
            eos.unwrap_or_default(),
        )))
    }

    /// The template as the file has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt that asks for the next turn of the assistant.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::InvalidRequest(
                "there are no messages, expected at least one".into(),
            ));
        }
        match self.render_whole(messages) {
            Outcome::Whole(text) => Ok(text),
            Outcome::Dropped(dropped) => {
                let system = |&i: &usize| messages[i].role == "system";
                if !dropped.iter().any(system) {
                    return Err(no_place(&messages[dropped[0]]));
                }
                let moved: Vec<usize> = dropped.into_iter().filter(system).collect();
                self.render_moved(messages, &moved)
            }
            // Some templates raise for a system message instead.
            Outcome::Failed(error) => {
                let moved: Vec<usize> = (0..messages.len())
                    .filter(|&i| messages[i].role == "system")
                    .collect();
                if moved.is_empty() || !matches!(error, Error::InvalidRequest(_)) {
                    return Err(error);
                }
                self.render_moved(messages, &moved).map_err(|_| error)
            }
        }
    }

    /// Renders with the system messages at `moved` put before the first user turn's text.
    fn render_moved(&self, messages: &[Message], moved: &[usize]) -> Result<String> {
        let mut kept: Vec<Message> = Vec::with_capacity(messages.len());
        let mut text = String::new();
        for (i, message) in messages.iter().enumerate() {
            if moved.contains(&i) {
                if message.tools.is_some() {
                    return Err(no_place_for_tools(message));
                }
                text.push_str(&message.content);
                text.push_str("\n\n");
            } else {
                kept.push(message.clone());
            }
        }
        let Some(first) = kept.iter_mut().find(|m| m.role == "user") else {
            return Err(Error::InvalidRequest(
                "the chat template has no place for a message with role `system`, and there is no message with role \
                 `user` to put it before"
                    .into(),
            ));
        };
        first.content.insert_str(0, &text);
        match self.render_whole(&kept) {
            Outcome::Whole(text) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "the chat template has no place for a system message: it goes before the first user message"
                    );
                }
                Ok(text)
            }
            Outcome::Dropped(dropped) => Err(no_place(&kept[dropped[0]])),
            Outcome::Failed(error) => Err(error),
        }
    }

    /// Renders, and finds out which messages' contents are not in the result.
    fn render_whole(&self, messages: &[Message]) -> Outcome {
        let text = match self.render_plain(messages) {
            Ok(text) => text,
            Err(error) => return Outcome::Failed(error),
        };
        // White space is nothing to lose: many templates trim.
        let said = |i: &usize| !messages[*i].content.trim().is_empty();
        let marker = |i: usize| format!("Candlewick{i:08}Marker");
        let tools_marker = |i: usize| format!("Candlewick{i:08}Tools");
        let marked: Vec<Message> = messages
            .iter()
            .enumerate()
            .map(|(i, m)| Message {
                role: m.role.clone(),
                content: marker(i),
                tools: m.tools.as_ref().map(|_| tools_marker(i)),
            })
            .collect();
        let marked = self.render_plain(&marked);
        let tools_dropped = messages
            .iter()
            .enumerate()
            .find(|(i, m)| match (&m.tools, &marked) {
                (None, _) => false,
                (Some(_), Ok(marked)) => !marked.contains(&tools_marker(*i)),
                (Some(tools), Err(_)) => !text.contains(tools.trim()),
            });
        if let Some((_, message)) = tools_dropped {
            return Outcome::Failed(no_place_for_tools(message));
        }
        let dropped: Vec<usize> = match marked {
            Ok(marked) => (0..messages.len())
                .filter(said)
                .filter(|&i| !marked.contains(&marker(i)))
                .collect(),
            // A template that reads the contents may refuse the markers: look for the contents, each
            // after the one before.
            Err(_) => {
                let mut rest = text.as_str();
                (0..messages.len())
                    .filter(said)
                    .filter(|&i| {
                        let content = messages[i].content.trim();
                        match rest.find(content) {
                            Some(at) => {
                                rest = &rest[at + content.len()..];
                                false
                            }
                            None => true,
                        }
                    })
                    .collect()
            }
        };
        if dropped.is_empty() {
            Outcome::Whole(text)
        } else {
            Outcome::Dropped(dropped)
        }
    }

    fn render_plain(&self, messages: &[Message]) -> Result<String> {
        let env = self
            .compiled
            .get_or_init(|| compile(&self.source).map_err(|e| explain(&e)))
            .as_ref()
            .map_err(Error::clone)?;
        let messages: Vec<_> = messages
            .iter()
            .map(|m| match &m.tools {
                // Templates ask `'tools' in message`.
                Some(tools) => {
                    context! { role => m.role.as_str(), content => m.content.as_str(), tools => tools.as_str() }
                }
                None => context! { role => m.role.as_str(), content => m.content.as_str() },
            })
            .collect();
        // `tools` and `documents` are None there, not undefined: templates ask `is not none`.
        let context = context! {
            messages,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => true,
            tools => (),
            documents => (),
        };
        let mut prompt = Prompt::default();
        let rendered = env
            .get_template("chat")
            .and_then(|t| t.render_captured_to(context, &mut prompt).map(drop));
        if prompt.overflowed {
            return Err(Error::InvalidRequest(format!(
                "the prompt has more than {MAX_PROMPT_BYTES} bytes: shorten the messages"
            )));
        }
        rendered.map_err(|e| explain(&e))?;
        String::from_utf8(prompt.bytes).map_err(|e| Error::Engine(format!("chat template: {e}")))
    }
}

enum Outcome {
    Whole(String),
    /// The indices of messages whose contents are not in the prompt; never empty.
    Dropped(Vec<usize>),
    Failed(Error),
}

fn no_place(message: &Message) -> Error {
    Error::InvalidRequest(format!(
        "the chat template has no place for a message with role `{}`",
        message.role
    ))
}

fn no_place_for_tools(message: &Message) -> Error {
    Error::InvalidRequest(format!(
        "the chat template has no place for the tools of a message with role `{}`",
        message.role
    ))
}

/// What the template says with `raise_exception` is for whoever wrote the messages; the rest is a
/// fault of the template.
fn explain(error: &minijinja::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(Raised(message)) = e.downcast_ref() {
            return Error::InvalidRequest(format!("the chat template refuses: {message}"));
        }
        source = e.source();
    }
    Error::ModelFormat(format!(
        "the chat template cannot be used: {error} (pass the prompt as raw text instead)"
    ))
}

/// The output, up to its limit.
#[derive(Default)]
struct Prompt {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl std::io::Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_PROMPT_BYTES {
            self.overflowed = true;
            return Err(std::io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::gguf::Value;

    /// As in the first Phi-3 files: no place for a system message.
    const FIRST_PHI3: &str = "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}";
    /// In the manner of Gemma and Mistral.
    const STRICT: &str = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}[{{ m['role'] }}] {{ m['content'] | trim }}{{ eos_token }}{% endfor %}";

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String> {
        let messages: Vec<_> = messages.iter().map(|&(r, c)| Message::new(r, c)).collect();
        ChatTemplate::new(source, "<s>", "<e>").render(&messages)
    }

    #[test]
    fn prompts_hold_every_message() {
        for (source, messages, prompt) in [
            (
                PHI3_TEMPLATE,
                &[
                    ("system", "Be brief."),
                    ("user", " Hi\n"),
                    ("assistant", "Yo"),
                    ("user", "?"),
                ][..],
                "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi\n<|end|>\n<|assistant|>\nYo<|end|>\n<|user|>\n?<|end|>\n<|assistant|>\n",
            ),
            (
                FIRST_PHI3,
                &[("user", "Hi"), ("assistant", "Yo"), ("user", "?")],
                "<s><|user|>\nHi<|end|>\n<|assistant|>\nYo<|end|>\n<|user|>\n?<|end|>\n<|assistant|>\n",
            ),
            (
                "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
                &[("system", "S"), ("user", "Hi")],
                "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>",
            ),
            (
                "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
                &[("system", "S"), ("user", "Hi")],
                "<|system|>S<|end|><|user|>Hi<|end|><|assistant|>",
            ),
            // "user" is written by the template too, and is not there for that.
            (
                FIRST_PHI3,
                &[
                    ("system", "user"),
                    ("user", "Hi"),
                    ("assistant", "Yo"),
                    ("system", "b"),
                    ("user", "?"),
                ],
                "<s><|user|>\nuser\n\nb\n\nHi<|end|>\n<|assistant|>\nYo<|end|>\n<|user|>\n?<|end|>\n<|assistant|>\n",
            ),
            // White space is not missed.
            (
                FIRST_PHI3,
                &[("system", " \n"), ("user", "Hi")],
                "<s><|user|>\nHi<|end|>\n<|assistant|>\n",
            ),
            (
                STRICT,
                &[("user", " Hi "), ("assistant", "Yo")],
                "[user] Hi<e>[assistant] Yo<e>",
            ),
            (
                STRICT,
                &[("system", "S"), ("user", "Hi")],
                "[user] S\n\nHi<e>",
            ),
            // It reads the contents, and would refuse any others.
            (
                "{% if messages[0].content != 'a' %}{{ raise_exception('no') }}{% endif %}{% for m in messages if m.role != 'system' %}<{{ m.content }}>{% endfor %}",
                &[("user", "a"), ("user", "b")],
                "<a><b>",
            ),
            (
                "{{ messages[-1].content }}{{ tools is none }}{{ tools is defined }}",
                &[("user", "a")],
                "aTrueTrue",
            ),
        ] {
            assert_eq!(render(source, messages).unwrap(), prompt, "{messages:?}");
        }
    }

    #[test]
    fn what_cannot_be_rendered_is_said() {
        for (source, messages, words) in [
            (PHI3_TEMPLATE, &[][..], "no messages"),
            (
                PHI3_TEMPLATE,
                &[("user", "a"), ("tool", "5")],
                "role `tool`",
            ),
            (
                FIRST_PHI3,
                &[("user", "a"), ("tool", "5")],
                "no place for a message with role `tool`",
            ),
            // In "<|user|>" there is a "user", but not from the message.
            (
                FIRST_PHI3,
                &[("user", "a"), ("tool", "user")],
                "role `tool`",
            ),
            (
                FIRST_PHI3,
                &[("system", "S"), ("tool", "5"), ("user", "a")],
                "role `tool`",
            ),
            (
                FIRST_PHI3,
                &[("system", "S"), ("assistant", "a")],
                "no message with role `user`",
            ),
            (
                STRICT,
                &[("user", "a"), ("user", "b")],
                "Roles must alternate",
            ),
            (
                STRICT,
                &[("system", "S"), ("assistant", "b")],
                "System role not supported",
            ),
            (
                "{% if messages[0].content != 'a' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}",
                &[("user", "a"), ("tool", "a")],
                "role `tool`",
            ),
            (
                "{% for i in range(100) %}{{ messages[0].content * 10000 }}{% endfor %}",
                &[(
                    "user",
                    "0123456789012345678901234567890123456789012345678901234567890123456789",
                )],
                "more than",
            ),
        ] {
            let error = render(source, messages).unwrap_err();
            assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_broken_template_is_an_error_when_it_is_needed() {
        for source in [
            "{% for %}",
            "{{ messages[0].content.nothing.at_all }}",
            "{{ unknown() }}",
            "{{ missing[0] }}",
        ] {
            let template = ChatTemplate::new(source, "", "");
            for _ in 0..2 {
                let error = template.render(&[Message::new("user", "a")]).unwrap_err();
                assert!(matches!(error, Error::ModelFormat(_)), "{error:?}");
            }
        }
    }

    #[test]
    fn a_model_has_its_own_template_or_phi3s() {
        let none = testing::phi3(&["a"]);
        let mut own = none.clone();
        let source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}";
        own.insert("tokenizer.chat_template".into(), Value::Str(source.into()))
            .unwrap();
        for (metadata, text) in [
            (own, "<s>a<|endoftext|>"),
            (none, "<|user|>\na<|end|>\n<|assistant|>\n"),
        ] {
            let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
            let template = ChatTemplate::from_gguf(&metadata, &tokenizer)
                .unwrap()
                .unwrap();
            assert_eq!(template.render(&[Message::new("user", "a")]).unwrap(), text);
        }
        let base = testing::gpt2("gpt-2", &[], &["<|endoftext|>"]);
        let tokenizer = Tokenizer::from_gguf(&base).unwrap();
        assert!(
            ChatTemplate::from_gguf(&base, &tokenizer)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_template_serves_many_threads() {
        let template = ChatTemplate::new(PHI3_TEMPLATE, "", "");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| template.render(&[Message::new("user", "a")]).unwrap());
            }
        });
    }
}
