//! Runs one script in one configuration.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, OptLevel, Settings};
use coracle_engine::runtime::{
    CallError, Engine, Instance, InstantiateError, Linker, MemoryError, Module, Store, StoreConfig,
    TrapKind, Val,
};
use wast::lexer::Lexer;
use wast::parser::{self, ParseBuffer};
use wast::{QuoteWat, Wast, WastDirective, WastExecute, WastInvoke, Wat};

use crate::suite::{Configuration, TestFile};
use crate::{lazy, spectest, values};

/// What a directive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Module,
    Register,
    Invoke,
    Return,
    Trap,
    Exhaustion,
    Exception,
    Invalid,
    Malformed,
    Unlinkable,
}

impl Outcome {
    /// Whether the directive is an assertion, and not what prepares one.
    pub(crate) fn is_assertion(self) -> bool {
        !matches!(self, Outcome::Module | Outcome::Register | Outcome::Invoke)
    }
}

const OUTCOMES: [Outcome; 10] = [
    Outcome::Module,
    Outcome::Register,
    Outcome::Invoke,
    Outcome::Return,
    Outcome::Trap,
    Outcome::Exhaustion,
    Outcome::Exception,
    Outcome::Invalid,
    Outcome::Malformed,
    Outcome::Unlinkable,
];

/// What a run of a script came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counts: BTreeMap<Outcome, usize>,
    pub(crate) unexpected: Vec<String>,
}

impl Report {
    /// Writes it as lines, the last of which is `.`.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (outcome, count) in &self.counts {
            writeln!(out, "count {} {count}", *outcome as usize)?;
        }
        for what in &self.unexpected {
            writeln!(out, "unexpected {}", what.replace('\n', " | "))?;
        }
        writeln!(out, ".")?;
        out.flush()
    }

    /// Reads one such line; `false` for the last.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "count" => {
                let (outcome, count) = rest.split_once(' ').expect("two words");
                let outcome = OUTCOMES[outcome.parse::<usize>().expect("a number")];
                self.counts.insert(outcome, count.parse().expect("a number"));
            }
            "unexpected" => self.unexpected.push(rest.to_owned()),
            _ => return false,
        }
        true
    }
}

/// Runs a script.
pub(crate) fn run(file: &TestFile, configuration: &Configuration) -> Report {
    let mut lexer = Lexer::new(&file.text);
    // Names are tested with characters that mean to confuse.
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer).expect("the suite is well-formed");
    let script = match parser::parse::<Wast<'_>>(&buffer) {
        Ok(script) => script,
        Err(error) => {
            let what = format!("{}: cannot parse: {error}", file.name);
            return Report { unexpected: vec![what], ..Report::default() };
        }
    };
    let mut runner = Runner::new(file, configuration);
    runner.links = script.directives.iter().any(links_instances);
    for directive in script.directives {
        let line = directive.span().linecol_in(&file.text).0 + 1;
        runner.directive(directive, line);
    }
    runner.report
}

/// Whether the script needs more than one live instance with a memory at a time.
fn links_instances(directive: &WastDirective<'_>) -> bool {
    let by_name = |exec: &WastExecute<'_>| match exec {
        WastExecute::Invoke(invoke) => invoke.module.is_some(),
        WastExecute::Get { module, .. } => module.is_some(),
        WastExecute::Wat(_) => false,
    };
    match directive {
        WastDirective::Register { .. } | WastDirective::ModuleInstance { .. } => true,
        WastDirective::Invoke(invoke) => invoke.module.is_some(),
        WastDirective::AssertReturn { exec, .. }
        | WastDirective::AssertTrap { exec, .. }
        | WastDirective::AssertException { exec, .. } => by_name(exec),
        _ => false,
    }
}

/// What a directive came to, or why it did not go as the script says.
type Step<T = Outcome> = Result<T, String>;

struct Runner<'a> {
    file: &'a TestFile,
    settings: Settings,
    /// Whether functions are compiled when they are first called.
    lazy: bool,
    /// Whether several instances must live at a time.
    links: bool,
    engine: Engine,
    linker: Linker,
    store: Store,
    /// The module that unnamed actions refer to.
    current: Step<Instance>,
    named: HashMap<String, Step<Instance>>,
    definitions: HashMap<String, Step<Module>>,
    last_definition: Step<Module>,
    report: Report,
}

impl<'a> Runner<'a> {
    fn new(file: &'a TestFile, configuration: &Configuration) -> Runner<'a> {
        let engine = Engine::new();
        let settings = configuration.settings(file);
        let (store, linker) = world(&engine, &settings);
        let none = "there is no module yet".to_owned();
        Runner {
            file,
            settings,
            lazy: configuration.lazy,
            links: false,
            engine,
            linker,
            store,
            current: Err(none.clone()),
            named: HashMap::new(),
            definitions: HashMap::new(),
            last_definition: Err(none),
            report: Report::default(),
        }
    }

    fn directive(&mut self, directive: WastDirective<'_>, line: usize) {
        match self.step(directive) {
            Ok(outcome) => *self.report.counts.entry(outcome).or_default() += 1,
            Err(what) => {
                self.report.unexpected.push(format!("{}:{line}: {what}", self.file.name));
            }
        }
    }

    fn step(&mut self, directive: WastDirective<'_>) -> Step {
        match directive {
            WastDirective::Module(mut wat) => {
                let name = wat.name().map(|id| id.name().to_owned());
                let instance = self.main_module(&mut wat);
                self.current = instance.clone();
                if let Some(name) = name {
                    self.named.insert(name, instance.clone());
                }
                instance.map(|_| Outcome::Module)
            }
            WastDirective::ModuleDefinition(mut wat) => {
                let name = wat.name().map(|id| id.name().to_owned());
                let module = self.load(&mut wat, Addressing::Generic);
                self.last_definition = module.clone();
                if let Some(name) = name {
                    self.definitions.insert(name, module.clone());
                }
                module.map(|_| Outcome::Module)
            }
            WastDirective::ModuleInstance { instance, module, .. } => {
                let module = match module {
                    Some(id) => self
                        .definitions
                        .get(id.name())
                        .cloned()
                        .ok_or("no such module".to_owned())?,
                    None => self.last_definition.clone(),
                };
                let result = module.and_then(|module| self.instantiate_expecting_success(&module));
                self.current = result.clone();
                if let Some(id) = instance {
                    self.named.insert(id.name().to_owned(), result.clone());
                }
                result.map(|_| Outcome::Module)
            }
            WastDirective::Register { name, module, .. } => {
                let instance = self.instance(module.map(|id| id.name()))?;
                self.linker.instance(name.to_owned(), instance);
                Ok(Outcome::Register)
            }
            WastDirective::Invoke(invoke) => {
                let results = self.invoke(&invoke)?;
                results.map_err(|error| format!("failed: {error}"))?;
                Ok(Outcome::Invoke)
            }
            WastDirective::AssertReturn { exec, results, .. } => self.assert_return(exec, &results),
            WastDirective::AssertTrap { exec, message, .. } => self.assert_trap(exec, message),
            WastDirective::AssertExhaustion { call, message, .. } => {
                self.assert_trap(WastExecute::Invoke(call), message)?;
                Ok(Outcome::Exhaustion)
            }
            WastDirective::AssertException { exec, .. } => self.assert_exception(exec),
            WastDirective::AssertInvalid { mut module, .. } => {
                // A text that is refused already is refused.
                if let Ok(wasm) = module.encode() {
                    self.assert_refused(&wasm)?;
                }
                Ok(Outcome::Invalid)
            }
            WastDirective::AssertMalformed { mut module, .. } => {
                if let Ok(wasm) = module.encode() {
                    self.assert_refused(&wasm)?;
                }
                Ok(Outcome::Malformed)
            }
            WastDirective::AssertUnlinkable { module, message, .. } => {
                self.assert_unlinkable(module, message)
            }
            other => Err(format!("unknown directive {other:?}")),
        }
    }

    /// Instantiates what following actions refer to.
    fn main_module(&mut self, wat: &mut QuoteWat<'_>) -> Step<Instance> {
        let wasm = wat.encode().map_err(|error| format!("cannot encode: {error}"))?;
        let module = self.load_wasm(&wasm, self.settings.addressing)?;
        if self.settings.addressing == Addressing::Dedicated && !self.links {
            // The fixed address is free again once the store with the last main instance is gone.
            self.current = Err("the module was replaced".to_owned());
            let (store, linker) = world(&self.engine, &self.settings);
            (self.store, self.linker) = (store, linker);
        }
        match self.instantiate(&module) {
            // One instance at a time has the fixed address: in a script that links several the first
            // that has a memory. Others, and importers of what lies elsewhere, do without.
            Err(
                InstantiateError::NotDedicated
                | InstantiateError::Memory(MemoryError::SecondDedicated),
            ) => {
                let module = self.load_wasm(&wasm, Addressing::Generic)?;
                self.instantiate_expecting_success(&module)
            }
            result => result.map_err(|error| format!("cannot instantiate: {error}")),
        }
    }

    fn instantiate_expecting_success(&mut self, module: &Module) -> Step<Instance> {
        self.instantiate(module).map_err(|error| format!("cannot instantiate: {error}"))
    }

    fn instantiate(&mut self, module: &Module) -> Result<Instance, InstantiateError> {
        self.linker.instantiate(&mut self.store, module)
    }

    fn load(&self, wat: &mut QuoteWat<'_>, addressing: Addressing) -> Step<Module> {
        let wasm = wat.encode().map_err(|error| format!("cannot encode: {error}"))?;
        self.load_wasm(&wasm, addressing)
    }

    fn load_wasm(&self, wasm: &[u8], addressing: Addressing) -> Step<Module> {
        self.compile(wasm, &Settings { addressing, ..self.settings })
    }

    fn compile(&self, wasm: &[u8], settings: &Settings) -> Step<Module> {
        if self.lazy {
            return lazy::load(&self.engine, wasm, settings, 0);
        }
        let image = compile(wasm, settings).map_err(|error| format!("cannot compile: {error}"))?;
        Module::from_bytes(&self.engine, &image).map_err(|error| format!("cannot load: {error}"))
    }

    fn instance(&self, name: Option<&str>) -> Step<Instance> {
        match name {
            None => self.current.clone(),
            Some(name) => {
                self.named.get(name).cloned().ok_or(format!("there is no module {name}"))?
            }
        }
    }

    fn invoke(&mut self, invoke: &WastInvoke<'_>) -> Step<Result<Vec<Val>, CallError>> {
        let instance = self.instance(invoke.module.map(|id| id.name()))?;
        let args: Option<Vec<Val>> = invoke.args.iter().map(values::argument).collect();
        let args = args.ok_or(format!("arguments of another proposal: {:?}", invoke.args))?;
        let func = instance.func(&self.store, invoke.name);
        let func = func.ok_or(format!("there is no function {}", invoke.name))?;
        let mut results = Vec::new();
        Ok(func.call(&mut self.store, &args, &mut results).map(|()| results))
    }

    /// Runs an action that ends in values or an error.
    fn execute(&mut self, exec: WastExecute<'_>) -> Step<Result<Vec<Val>, CallError>> {
        match exec {
            WastExecute::Invoke(invoke) => self.invoke(&invoke),
            WastExecute::Get { module, global, .. } => {
                let instance = self.instance(module.map(|id| id.name()))?;
                let global =
                    instance.global(&self.store, global).ok_or("no such global".to_owned())?;
                Ok(Ok(vec![global.get(&self.store)]))
            }
            WastExecute::Wat(wat) => {
                let module = self.load(&mut QuoteWat::Wat(wat), Addressing::Generic)?;
                match self.instantiate(&module) {
                    Ok(_) => Ok(Ok(Vec::new())),
                    Err(InstantiateError::Failed(error)) => Ok(Err(error)),
                    Err(error) => Err(format!("cannot instantiate: {error}")),
                }
            }
        }
    }

    fn assert_return(&mut self, exec: WastExecute<'_>, expected: &[wast::WastRet<'_>]) -> Step {
        let results = self.execute(exec)?.map_err(|error| format!("failed: {error}"))?;
        let same = results.len() == expected.len()
            && results
                .iter()
                .zip(expected)
                .all(|(value, want)| values::matches(value, want, &self.store));
        if same {
            return Ok(Outcome::Return);
        }
        Err(format!("returned {results:?} instead of {expected:?}"))
    }

    fn assert_trap(&mut self, exec: WastExecute<'_>, message: &str) -> Step {
        match self.execute(exec)? {
            Err(CallError::Trap(trap)) if is_kind(trap.kind(), message) => Ok(Outcome::Trap),
            Err(error) => Err(format!("failed with {error} instead of {message}")),
            Ok(results) => Err(format!("returned {results:?} instead of {message}")),
        }
    }

    fn assert_exception(&mut self, exec: WastExecute<'_>) -> Step {
        match self.execute(exec)? {
            Err(CallError::Exception(_)) => Ok(Outcome::Exception),
            Err(error) => Err(format!("failed with {error} instead of an exception")),
            Ok(results) => Err(format!("returned {results:?} instead of an exception")),
        }
    }

    /// Neither the validator nor anything else lets the module through.
    fn assert_refused(&self, wasm: &[u8]) -> Step<()> {
        match compile(wasm, &self.settings) {
            Err(_) => Ok(()),
            Ok(_) => Err("compiled although it is not valid".to_owned()),
        }
    }

    fn assert_unlinkable(&mut self, module: Wat<'_>, message: &str) -> Step {
        let module = self.load(&mut QuoteWat::Wat(module), Addressing::Generic)?;
        let error = match self.instantiate(&module) {
            Ok(_) => return Err("linked although it should not".to_owned()),
            Err(error) => error,
        };
        let right = match message {
            "unknown import" => matches!(error, InstantiateError::UnknownImport { .. }),
            _ => matches!(error, InstantiateError::IncompatibleImport { .. }),
        };
        if right {
            return Ok(Outcome::Unlinkable);
        }
        Err(format!("failed with {error} instead of {message}"))
    }
}

/// Code without optimisation runs with a collection at every allocation of an object: it keeps
/// references where other code does not.
fn world(engine: &Engine, settings: &Settings) -> (Store, Linker) {
    let gc_stress = settings.opt_level == OptLevel::None;
    let config = StoreConfig { gc_stress, ..StoreConfig::default() };
    let mut store = Store::with_config(engine, config).expect("a store");
    let mut linker = Linker::new(engine);
    spectest::define(&mut linker, &mut store);
    (store, linker)
}

/// Whether the suite means this kind of trap by its message.
fn is_kind(kind: TrapKind, message: &str) -> bool {
    match kind {
        // An indirect call outside of the table has words of its own.
        TrapKind::TableOutOfBounds => {
            message.starts_with(kind.message()) || message == "undefined element"
        }
        // The kind of what is null stands in the middle of the suite's words.
        TrapKind::NullReference => message.starts_with("null") && message.ends_with("reference"),
        _ => message.starts_with(kind.message()),
    }
}
