//! `nautilus completion`: what a shell needs to complete the command.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::exit::Exit;
use super::output::print;

/// Prints what a shell needs to complete this command
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Does it.
    pub fn run(self) -> Exit {
        let mut text = Vec::new();
        generate(self.shell, &mut super::Arguments::command(), "nautilus", &mut text);
        print(text);
        Exit::Done
    }
}
