#!/usr/bin/env bash
# Unpack packages of another Debian release, for this CPU or another one, in a separate folder.
#
#   tools/debian.sh suite architecture package...
#
# Their dependencies are unpacked too. They come from the mirror that apt uses here, or from
# DEBIAN_MIRROR, and are verified with Debian's keys. Nothing is installed, and no script of a
# package runs. Prints the name of the folder, .cache/debian/SUITE-ARCHITECTURE.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 3 ] || { sed -n '2,8s/^#* \{0,1\}//p' "$0" >&2; exit 2; }
suite=$1
architecture=$2
shift 2
keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
root=$PWD/.cache/debian/$suite-$architecture
state=$root.apt

# Skip the packages that are already unpacked.
wanted=()
for package; do
    [ -e "$state/done/$package" ] || wanted+=("$package")
done
if [ ${#wanted[@]} -eq 0 ]; then
    echo "$root"
    exit
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "apt is missing: this works on Debian and its derivatives only" >&2
    exit 1
}
[ -e "$keyring" ] || {
    echo "$keyring is missing: apt install debian-archive-keyring" >&2
    exit 1
}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' |
    awk '$1 == "Debian" { print $2; exit }')}
[ -n "$mirror" ] || {
    echo "apt has no mirror of Debian: run 'apt update' first, or set DEBIAN_MIRROR" >&2
    exit 1
}

mkdir -p "$state"/{state/lists/partial,cache/archives/partial,etc,done} "$root"
: >"$state/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$state/etc/sources.list"
options=(
    -q -o "Dir::State=$state/state" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state/cache" -o "Dir::Etc::SourceList=$state/etc/sources.list"
    -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null
    -o Dir::Etc::PreferencesParts=/dev/null
    -o "APT::Architecture=$architecture" -o "APT::Architectures::=$architecture"
    -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Debug::NoLocking=true
    -o APT::Get::List-Cleanup=false -o Acquire::Languages=none
    # The list of sid may have expired if the mirror is not up to date.
    -o Acquire::Check-Valid-Until=false
)
apt-get "${options[@]}" update >&2
# Keep no archives of earlier runs.
rm -f "$state"/cache/archives/*.deb
apt-get "${options[@]}" -y --download-only install "${wanted[@]}" >&2

# These links come from base-files, on which no package depends.
for folder in bin lib lib64 sbin; do
    mkdir -p "$root/usr/$folder"
    [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"
done
for package in "$state"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$root"
done
# Absolute links would point to files of this machine: make them relative.
find "$root" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
    ln -sfnr "$root$(readlink "$link")" "$link"
done
rm -f "$state"/cache/archives/*.deb
for package in "${wanted[@]}"; do
    : >"$state/done/$package"
done
echo "$root"
