//! File -> Candle: the types it can hold (the others become f32), a tensor as a quantized matrix, and the CPUs it cannot run on.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::gguf::{GgmlType, Gguf, TensorInfo, dequantize};

/// Candle's name of a tensor type, or `None` for those that Candle 0.11 has no blocks for.
fn held(ty: GgmlType) -> Option<GgmlDType> {
    Some(match ty {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2_K => GgmlDType::Q2K,
        GgmlType::Q3_K => GgmlDType::Q3K,
        GgmlType::Q4_K => GgmlDType::Q4K,
        GgmlType::Q5_K => GgmlDType::Q5K,
        GgmlType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Candle's name of a tensor's type.
///
/// # Errors
/// `Unsupported`, naming the tensor, for the types that Candle has no blocks for.
pub(super) fn dtype(tensor: &TensorInfo) -> Result<GgmlDType> {
    held(tensor.ty).ok_or_else(|| {
        Error::Unsupported(format!(
            "tensor `{}` has type {}, which Candle cannot hold; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, \
             Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K. Use engine=\"candle\" or \"native\"",
            tensor.name,
            tensor.ty.name()
        ))
    })
}

/// Blocks of type `ty` on `device`; those that Candle cannot hold as f32.
fn blocks(bytes: &[u8], shape: Vec<usize>, ty: GgmlType, device: &Device) -> Result<QTensor> {
    if let Some(dtype) = held(ty) {
        let storage = QStorage::from_data(Cow::Borrowed(bytes), device, dtype)?;
        return Ok(QTensor::new(storage, shape)?);
    }
    let mut values = vec![0.0f32; shape.iter().product()];
    dequantize(ty, bytes, &mut values);
    let values = Tensor::from_vec(values, shape, device)?;
    Ok(QTensor::quantize(&values, GgmlDType::F32)?)
}

/// Copies a tensor to `device`.
fn quantized(gguf: &Gguf, tensor: &TensorInfo, device: &Device) -> Result<QTensor> {
    blocks(gguf.bytes(tensor), tensor.shape.clone(), tensor.ty, device)
}

/// A matrix to multiply with, (outputs, inputs). Candle expands F16 and BF16 to f32.
pub(super) fn matrix(gguf: &Gguf, tensor: &TensorInfo, device: &Device) -> Result<QMatMul> {
    Ok(QMatMul::from_qtensor(quantized(gguf, tensor, device)?)?)
}

/// A vector in f32.
pub(super) fn vector(gguf: &Gguf, tensor: &TensorInfo, device: &Device) -> Result<Tensor> {
    Ok(quantized(gguf, tensor, device)?.dequantize(device)?)
}

/// Rows `ids` of a matrix, dequantized: (ids, inputs) f32. Reads just those rows from the file.
pub(super) fn rows(
    gguf: &Gguf,
    tensor: &TensorInfo,
    ids: &[u32],
    device: &Device,
) -> Result<Tensor> {
    let bytes = gguf.bytes(tensor);
    let row_bytes = bytes.len() / tensor.shape[0];
    let mut picked = Vec::with_capacity(ids.len() * row_bytes);
    for &id in ids {
        let start = id as usize * row_bytes;
        let row = bytes.get(start..start + row_bytes).ok_or_else(|| {
            Error::InvalidRequest(format!(
                "token id {id} is outside the vocabulary of {} tokens",
                tensor.shape[0]
            ))
        })?;
        picked.extend_from_slice(row);
    }
    let rows = blocks(
        &picked,
        vec![ids.len(), tensor.shape[1]],
        tensor.ty,
        &Device::Cpu,
    )?;
    Ok(rows.dequantize(&Device::Cpu)?.to_device(device)?)
}

/// Bytes that a matrix takes in memory: its blocks, and on the CPU the packed copy that Candle makes of some types
/// with the first product, which stays beside them (candle-core 0.11.1, `quantized/repack_x86.rs` and `repack.rs`).
pub(super) fn resident_bytes(tensor: &TensorInfo, device: &Device) -> u64 {
    let blocks = tensor.n_bytes() as u64;
    let packs = device.is_cpu() && tensor.shape.len() == 2 && tensor.shape[0].is_multiple_of(16);
    match tensor.ty {
        // Expanded to f32.
        ty if matches!(ty, GgmlType::F16 | GgmlType::BF16) || held(ty).is_none() => {
            4 * tensor.n_elements() as u64
        }
        // 16 rows of a block of 256: scales and mins become f32. With AMX the copy is larger still.
        GgmlType::Q4_K if packs => blocks + blocks * 3072 / 2304,
        GgmlType::Q6_K if packs => blocks + blocks * 152 / 100,
        _ => blocks,
    }
}

/// Candle's K-quant products on aarch64 are `sdot` instructions without a run-time check: on ARMv8.0 (Raspberry
/// Pi 4, Graviton 1) they kill the process.
pub(super) fn refuse_old_arm(device: &Device) -> Result<()> {
    #[cfg(target_arch = "aarch64")]
    if device.is_cpu() && !std::arch::is_aarch64_feature_detected!("dotprod") {
        return Err(Error::Unsupported(
            "this ARM CPU has no dot-product instructions (dotprod), without which the `candle` and `original` \
             engines cannot run on it"
                .into(),
        ));
    }
    let _ = device;
    Ok(())
}
