"""Print a completion script for a shell.

bash: eval "$(candlewick completion bash)"; zsh: the same with zsh; fish: candlewick completion fish | source.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")

BASH = """\
_candlewick() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words
  case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="{commands}" ;;
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ "$word" == -* ]] || COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _candlewick candlewick
"""


def run(options: argparse.Namespace, root: argparse.ArgumentParser) -> int:
    """The command ``completion``."""
    commands = _commands(root)
    if options.shell == "fish":
        print("\n".join(_fish(commands)))
        return 0
    if options.shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    cases = "\n".join(f'    {name}) words="{" ".join(_flags(command))}" ;;' for name, command in commands.items())
    print(BASH.format(cases=cases, commands=" ".join([*commands, *_flags(root)])), end="")
    return 0


def _commands(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def _fish(commands: dict[str, argparse.ArgumentParser]) -> list[str]:
    lines = ["complete -c candlewick -n __fish_use_subcommand -a '" + " ".join(commands) + "'"]
    for name, command in commands.items():
        for flag in _flags(command):
            lines.append(f"complete -c candlewick -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}")
    return lines
