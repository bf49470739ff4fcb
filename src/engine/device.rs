//! `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"metal"` -> a Candle device.

use candle_core::Device;

use crate::error::{Error, Result};

/// Where a user wants the model to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A compiled-in accelerator that answers, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by ordinal.
    Cuda(usize),
    /// A Metal device by ordinal.
    Metal(usize),
}

impl DeviceChoice {
    /// Parses a user's words.
    pub fn parse(text: &str) -> Result<Self> {
        let (kind, ordinal) = text.split_once(':').unwrap_or((text, "0"));
        let ordinal = ordinal.parse::<u16>().ok().map(usize::from);
        match (kind, ordinal) {
            ("auto", _) if text == "auto" => Ok(Self::Auto),
            ("cpu", _) if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Some(n)) => Ok(Self::Cuda(n)),
            ("metal", Some(n)) => Ok(Self::Metal(n)),
            _ => Err(Error::InvalidRequest(format!(
                "device is {text:?}, expected \"auto\", \"cpu\", \"cuda\", \"cuda:N\", \"metal\" or \"metal:N\""
            ))),
        }
    }

    /// Opens the device.
    pub(super) fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => {
                Err(not_compiled("cuda", "an NVIDIA GPU and the CUDA toolkit"))
            }
            Self::Metal(_) if !cfg!(feature = "metal") => {
                Err(not_compiled("metal", "a Mac with Apple silicon"))
            }
            Self::Cuda(n) => Device::new_cuda(n).map_err(|e| failed(&format!("cuda:{n}"), &e)),
            Self::Metal(n) => Device::new_metal(n).map_err(|e| failed(&format!("metal:{n}"), &e)),
            Self::Auto if cfg!(feature = "cuda") => Ok(Device::cuda_if_available(0)?),
            Self::Auto if cfg!(feature = "metal") => Ok(Device::metal_if_available(0)?),
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

/// The device's name, as [`DeviceChoice::parse`] reads it.
pub(super) fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

fn not_compiled(feature: &str, needs: &str) -> Error {
    Error::Unsupported(format!(
        "this build of candlewick has no `{feature}` support; on {needs}, build it from source: \
         pip install candlewick --no-binary candlewick --config-settings build-args=\"--features {feature}\". \
         device=\"cpu\" works everywhere"
    ))
}

fn failed(name: &str, error: &candle_core::Error) -> Error {
    Error::Unsupported(format!(
        "device {name:?} cannot be opened: {error}; device=\"cpu\" works everywhere"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_or_refused() {
        for (text, expected) in [
            ("auto", Some(DeviceChoice::Auto)),
            ("cpu", Some(DeviceChoice::Cpu)),
            ("cuda", Some(DeviceChoice::Cuda(0))),
            ("cuda:3", Some(DeviceChoice::Cuda(3))),
            ("metal", Some(DeviceChoice::Metal(0))),
            ("cpu:0", None),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
            ("", None),
        ] {
            assert_eq!(DeviceChoice::parse(text).ok(), expected, "{text:?}");
        }
    }
}
