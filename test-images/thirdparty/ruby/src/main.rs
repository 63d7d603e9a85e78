//! Makes a plain WASI command of ruby.wasm, which is a library for a JavaScript host.
//!
//! ```text
//! ruby-command ruby+stdlib.wasm OUTPUT
//! ```
//!
//! The functions that JavaScript would provide become functions of the module, and a `_start` does
//! what the JavaScript around ruby.wasm does. Nothing has to be done about asyncify, by which Ruby
//! unwinds its stack: each exported function has the loop that winds it up again.

use anyhow::{Context, Result, bail};
use walrus::ir::{BinaryOp, LoadKind, MemArg, StoreKind};
use walrus::{
    DataKind, ExportItem, FunctionBuilder, FunctionId, ImportKind, InstrSeqBuilder, LocalId,
    MemoryId, Module, ModuleConfig, ValType,
};

/// The import modules of the JavaScript host.
const JAVASCRIPT: [&str; 2] = ["rb-js-abi-host", "canonical_abi"];
const WASI: &str = "wasi_snapshot_preview1";

/// Arguments of Ruby before those of the program: its name, UTF-8 for what is read, a script that
/// does nothing, so that Ruby does not read one from stdin, and no more options.
const ARGUMENTS: [&str; 4] = ["ruby", "-EUTF-8", "-e_=0", "--"];

/// What runs after that: the script that the first argument names. Ruby's own end is not exported,
/// so that blocks of `at_exit` do not run, and what it would flush is flushed here.
const MAIN: &str = r#"
begin
  status = 0
  $0 = ARGV.shift || abort("usage: ruby SCRIPT [ARGUMENT...]")
  load($0)
rescue SystemExit => error
  status = error.status
rescue Exception => error
  status = 1
  $stderr.write(error.full_message(highlight: false))
end
ObjectSpace.each_object(IO) { |io| io.flush unless io.closed? rescue nil }
exit!(status)
"#;

fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = &paths[..] else { bail!("usage: ruby-command INPUT OUTPUT") };
    let bytes = std::fs::read(input).with_context(|| format!("cannot read {input}"))?;
    std::fs::write(output, command(&bytes)?).with_context(|| format!("cannot write {output}"))
}

/// The module as a command.
fn command(library: &[u8]) -> Result<Vec<u8>> {
    let mut module = ModuleConfig::new().generate_producers_section(false).parse(library)?;
    replace_javascript(&mut module)?;
    let start = Start::new(&mut module)?.build(&mut module);
    let of_library = module.exports.iter().filter(|export| export.name != "memory");
    for export in of_library.map(|export| export.id()).collect::<Vec<_>>() {
        module.exports.delete(export);
    }
    module.exports.add("_start", start);
    // What only those exports used.
    walrus::passes::gc::run(&mut module);
    if let Some(import) = module.imports.iter().find(|import| import.module != WASI) {
        bail!("the import {}.{} is left", import.module, import.name);
    }
    Ok(module.emit_wasm())
}

/// Gives every function of the JavaScript host a body. A handle is the value itself; whatever needs
/// a JavaScript object ends the program.
fn replace_javascript(module: &mut Module) -> Result<()> {
    let mut wanted = Vec::new();
    for import in module.imports.iter() {
        if let ImportKind::Function(id) = import.kind
            && JAVASCRIPT.contains(&&*import.module)
        {
            wanted.push((id, import.name.clone()));
        }
    }
    for (id, name) in wanted {
        module.replace_imported_func(id, |(body, parameters)| {
            if name.starts_with("resource_new_") || name.starts_with("resource_get_") {
                body.local_get(parameters[0]);
            } else if !name.starts_with("resource_drop_") {
                body.unreachable();
            }
        })?;
    }
    Ok(())
}

/// What `_start` calls, and the memory that it works in.
struct Start {
    memory: MemoryId,
    initialize: FunctionId,
    realloc: FunctionId,
    ruby_init: FunctionId,
    init_loadpath: FunctionId,
    eval: FunctionId,
    args_sizes_get: FunctionId,
    args_get: FunctionId,
}

impl Start {
    fn new(module: &mut Module) -> Result<Start> {
        let i32 = ValType::I32;
        let two = module.types.add(&[i32, i32], &[i32]);
        let (args_sizes_get, _) = module.add_import_func(WASI, "args_sizes_get", two);
        let (args_get, _) = module.add_import_func(WASI, "args_get", two);
        let memory = module.exports.iter().find_map(|export| match export.item {
            ExportItem::Memory(id) => Some(id),
            _ => None,
        });
        let export = |name: &str| {
            // Some names go on with the types: `ruby-init: func(args: list<string>) -> ()`.
            let matches = |export: &&walrus::Export| export.name.split(':').next() == Some(name);
            match module.exports.iter().find(matches).map(|export| &export.item) {
                Some(ExportItem::Function(id)) => Ok(*id),
                _ => bail!("no function {name} is exported"),
            }
        };
        Ok(Start {
            memory: memory.context("no memory is exported")?,
            initialize: export("_initialize")?,
            realloc: export("cabi_realloc")?,
            ruby_init: export("ruby-init")?,
            init_loadpath: export("ruby-init-loadpath")?,
            eval: export("rb-eval-string-protect")?,
            args_sizes_get,
            args_get,
        })
    }

    /// Writes the function:
    ///
    /// ```text
    /// _initialize()
    /// texts = alloc(…); memory.init(texts, ARGUMENTS and MAIN)
    /// argc = alloc(8); args_sizes_get(argc, argc + 4)
    /// argv = alloc(4 * *argc); args_get(argv, alloc(argc[1]))
    /// argc = *argc
    /// list = alloc(8 * (argc + 4)); list[..4] = ARGUMENTS; list[4..] = argv[1..]
    /// ruby-init(list, argc + 3)
    /// ruby-init-loadpath()
    /// rb-eval-string-protect(MAIN)
    /// unreachable
    /// ```
    fn build(&self, module: &mut Module) -> FunctionId {
        // One text after the other, each argument with the NUL that Ruby reads it to.
        let mut texts = Vec::new();
        let mut places = Vec::new();
        for argument in ARGUMENTS {
            places.push(texts.len());
            texts.extend_from_slice(argument.as_bytes());
            texts.push(0);
        }
        let main = texts.len();
        texts.extend_from_slice(MAIN.as_bytes());
        let size = texts.len();
        // Passive, since no address is known to be free before the program runs.
        let data = module.data.add(DataKind::Passive, texts);

        let mut local = || module.locals.add(ValType::I32);
        let (text, argc, argv, list, index) = (local(), local(), local(), local(), local());
        let mut builder = FunctionBuilder::new(&mut module.types, &[], &[]);
        let mut body = builder.func_body();
        body.call(self.initialize);
        self.alloc(&mut body, 1, |body| number(body, size)).local_tee(text);
        number(&mut body, 0);
        number(&mut body, size);
        body.memory_init(self.memory, data);

        self.alloc(&mut body, 4, |body| number(body, 8)).local_tee(argc).local_get(argc);
        number(&mut body, 4);
        body.binop(BinaryOp::I32Add).call(self.args_sizes_get).drop();
        self.alloc(&mut body, 4, |body| {
            self.load(body.local_get(argc), 0);
            number(body, 4);
            body.binop(BinaryOp::I32Mul);
        })
        .local_tee(argv);
        self.alloc(&mut body, 1, |body| self.load(body.local_get(argc), 4));
        body.call(self.args_get).drop();
        self.load(body.local_get(argc), 0);
        body.local_set(argc);

        self.alloc(&mut body, 4, |body| {
            add(body, argc, ARGUMENTS.len());
            number(body, 8);
            body.binop(BinaryOp::I32Mul);
        })
        .local_set(list);
        for (position, place) in places.into_iter().enumerate() {
            body.local_get(list);
            add(&mut body, text, place);
            self.store(&mut body, 8 * position);
        }
        // The rest: for index in 1..argc, list[index + 3] = argv[index]. The lengths stay as they
        // are, since Ruby reads each argument to its NUL.
        number(&mut body, 1);
        body.local_set(index).loop_(None, |turn| {
            let again = turn.id();
            turn.local_get(index).local_get(argc).binop(BinaryOp::I32LtU).if_else(
                None,
                |more| {
                    for (start, size) in [(list, 8), (argv, 4)] {
                        more.local_get(start).local_get(index);
                        number(more, size);
                        more.binop(BinaryOp::I32Mul).binop(BinaryOp::I32Add);
                    }
                    self.load(more, 0);
                    self.store(more, 8 * (ARGUMENTS.len() - 1));
                    add(more, index, 1);
                    more.local_set(index).br(again);
                },
                |_| {},
            );
        });
        body.local_get(list);
        add(&mut body, argc, ARGUMENTS.len() - 1);
        body.call(self.ruby_init).call(self.init_loadpath);
        add(&mut body, text, main);
        number(&mut body, MAIN.len());
        // MAIN ends the program by itself.
        body.call(self.eval).drop().unreachable();
        module.funcs.add_local(builder.local_func(vec![]))
    }

    /// Allocates memory for good; `size` puts its size on the stack.
    fn alloc<'a, 'b>(
        &self,
        body: &'a mut InstrSeqBuilder<'b>,
        align: usize,
        size: impl FnOnce(&mut InstrSeqBuilder),
    ) -> &'a mut InstrSeqBuilder<'b> {
        for argument in [0, 0, align] {
            number(body, argument);
        }
        size(body);
        body.call(self.realloc)
    }

    fn load(&self, body: &mut InstrSeqBuilder, offset: u64) {
        body.load(self.memory, LoadKind::I32 { atomic: false }, MemArg { align: 4, offset });
    }

    fn store(&self, body: &mut InstrSeqBuilder, offset: usize) {
        let place = MemArg { align: 4, offset: offset as u64 };
        body.store(self.memory, StoreKind::I32 { atomic: false }, place);
    }
}

fn number(body: &mut InstrSeqBuilder, value: usize) {
    body.i32_const(value as i32);
}

/// Puts the sum of a local and a number on the stack.
fn add(body: &mut InstrSeqBuilder, local: LocalId, value: usize) {
    body.local_get(local);
    number(body, value);
    body.binop(BinaryOp::I32Add);
}
