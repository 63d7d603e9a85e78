//! The target: what the code generator may assume about the machine.

use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};

use super::CompileError;
use crate::config::{Cpu, OptLevel, Settings};

/// A code generator's flag and the name of the CPU feature behind it.
type Feature = (&'static str, &'static str);

/// x86-64-v2. With it no instruction of the scope needs a call of a C library function, so images
/// need no relocation; every server CPU since 2009 has it.
const BASELINE: &[Feature] = &[
    ("has_cmpxchg16b", "cmpxchg16b"),
    ("has_popcnt", "popcnt"),
    ("has_sse3", "sse3"),
    ("has_ssse3", "ssse3"),
    ("has_sse41", "sse4.1"),
    ("has_sse42", "sse4.2"),
];

/// What is used where the machine has it.
const OPTIONAL: &[Feature] = &[
    ("has_avx", "avx"),
    ("has_avx2", "avx2"),
    ("has_avx_vnni", "avxvnni"),
    ("has_avx512bitalg", "avx512bitalg"),
    ("has_avx512dq", "avx512dq"),
    ("has_avx512f", "avx512f"),
    ("has_avx512vbmi", "avx512vbmi"),
    ("has_avx512vl", "avx512vl"),
    ("has_avx512vnni", "avx512vnni"),
    ("has_bmi1", "bmi1"),
    ("has_bmi2", "bmi2"),
    ("has_fma", "fma"),
    ("has_lzcnt", "lzcnt"),
];

/// What translation chooses instructions by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// The instructions named after x86 exist.
    pub(super) x64: bool,
    /// Vectors in memory need not be aligned to be operands.
    pub(super) avx: bool,
    /// A multiplication and an addition rounded once is one instruction.
    pub(super) fma: bool,
    /// There is an instruction for sums of products of bytes.
    pub(super) vnni: bool,
}

impl Machine {
    pub(super) fn new(isa: &OwnedTargetIsa) -> Machine {
        let has =
            |name| isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true));
        let x64 = isa.name() == "x64";
        Machine {
            x64,
            avx: has("has_avx"),
            fma: !x64 || has("has_avx") && has("has_fma"),
            vnni: has("has_avx") && has("has_avx_vnni")
                || has("has_avx512vl") && has("has_avx512vnni"),
        }
    }
}

/// A configured code generator and what the image must record about it.
pub(super) struct Target {
    pub(super) isa: OwnedTargetIsa,
    /// CPU features that the code may use, as the standard library names them.
    pub(super) cpu_features: Vec<String>,
    pub(super) machine: Machine,
}

/// Configures the code generator for this machine, or for all that are like it.
pub(super) fn target(settings: &Settings) -> Result<Target, CompileError> {
    let fail = |reason: String| CompileError::Target { reason };
    let native = settings.cpu == Cpu::Native;
    let builder = cranelift_native::builder_with_options(native);
    let mut builder = builder.map_err(|reason| fail(reason.to_string()))?;
    if !native && cfg!(target_arch = "x86_64") {
        for (flag, _) in BASELINE {
            builder.enable(flag).map_err(|error| fail(error.to_string()))?;
        }
    }
    let flags = flags(settings).map_err(|error| fail(error.to_string()))?;
    let isa = builder.finish(flags).map_err(|error| fail(error.to_string()))?;
    let mut cpu_features = Vec::new();
    if isa.name() == "x64" {
        let enabled: Vec<_> = isa
            .isa_flags()
            .into_iter()
            .filter(|flag| flag.as_bool() == Some(true))
            .map(|flag| flag.name)
            .collect();
        if let Some((_, name)) = BASELINE.iter().find(|(flag, _)| !enabled.contains(flag)) {
            return Err(fail(format!("the CPU lacks {name} (x86-64-v2 is required)")));
        }
        for flag in enabled {
            let known = BASELINE.iter().chain(OPTIONAL).find(|(known, _)| *known == flag);
            // A feature that is used but not recorded would let an image run where it must not.
            let (_, name) = known.ok_or_else(|| fail(format!("unknown CPU flag {flag}")))?;
            cpu_features.push((*name).to_string());
        }
    }
    let machine = Machine::new(&isa);
    Ok(Target { isa, cpu_features, machine })
}

pub(super) fn flags(settings: &Settings) -> Result<settings::Flags, settings::SetError> {
    let mut flags = settings::builder();
    let opt_level = match settings.opt_level {
        OptLevel::None => "none",
        OptLevel::Speed => "speed",
    };
    let word = |on: bool| if on { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", opt_level),
        ("enable_verifier", word(settings.verifier)),
        ("regalloc_checker", word(settings.regalloc_checker)),
        ("is_pic", "true"),
        // Backtraces and trap handling walk frame pointers; nothing reads unwind tables.
        ("preserve_frame_pointers", "true"),
        ("unwind_info", "false"),
        // Where blocks lie is known, so that loops can be placed.
        ("machine_code_cfg_info", word(settings.opt_level == OptLevel::Speed)),
        // Results that do not fit the registers go through memory that the caller gives.
        ("enable_multi_ret_implicit_sret", "true"),
        // Frames larger than a page touch each page, so that no frame can step over a guard page.
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
        ("enable_heap_access_spectre_mitigation", "true"),
        ("enable_table_access_spectre_mitigation", "true"),
    ] {
        flags.set(name, value)?;
    }
    Ok(settings::Flags::new(flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::cpu;

    #[test]
    fn what_code_may_use_is_what_images_may_record() {
        let names =
            |features: &[Feature]| features.iter().map(|(_, name)| *name).collect::<Vec<_>>();
        assert_eq!(names(BASELINE), cpu::BASELINE);
        assert_eq!([names(BASELINE), names(OPTIONAL)].concat(), cpu::RECORDED);
    }
}
