# shellcheck shell=bash
# How the scripts speak. Sourced, never run.

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' plain=$'\e[0m'
else
    bold='' plain=''
fi

# heading TEXT...: opens a section.
heading() {
    printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"
}

# refuse TEXT...: ends the script with one clear sentence.
refuse() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
