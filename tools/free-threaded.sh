#!/usr/bin/env bash
# Print the path of a free-threaded CPython, building one if necessary.
#
# free-threaded.sh        PYTHON_FT, or python3.14t or python3.13t on PATH; otherwise, build one
# free-threaded.sh nogil  always the one that is built here
# free-threaded.sh gil    the same CPython, built in the same way but with a GIL, for comparison
# free-threaded.sh tsan   the same without a GIL, with ThreadSanitizer
#
# It builds CPython 3.13 from the source package of Debian trixie, which apt downloads and verifies
# with Debian's keys, and keeps it in .cache/. MAKEFLAGS sets the number of parallel compilers. With
# two, the build takes 3 minutes, and 600 MB while it runs.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "free-threaded.sh: $*" >&2
	exit 1
}

is_free_threaded() {
	"$1" -c 'import sysconfig; raise SystemExit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'
}

case ${1-} in
"")
	if [ -n "${PYTHON_FT-}" ]; then
		if found=$(command -v "$PYTHON_FT") && is_free_threaded "$found"; then
			echo "$found"
			exit
		fi
		fail "PYTHON_FT=$PYTHON_FT is not a free-threaded Python"
	fi
	for python in python3.14t python3.13t; do
		if found=$(command -v $python) && is_free_threaded "$found"; then
			echo "$found"
			exit
		fi
	done
	;;
nogil | gil | tsan) ;;
*) fail "unknown argument $1 (choose from nogil, gil, tsan, or give none)" ;;
esac

case ${1-nogil} in
gil)
	name=python3.13
	flags=()
	;;
tsan)
	name=python3.13t-tsan
	flags=(--disable-gil --with-thread-sanitizer)
	;;
*)
	name=python3.13t
	flags=(--disable-gil)
	;;
esac

prefix=$PWD/.cache/$name
python=$prefix/bin/${name%-tsan}
if [ -x "$python" ]; then
	echo "$python"
	exit
fi

# -- Requirements -------------------------------------------------------------

for program in apt-get dpkg-query gcc make pkg-config tar xz; do
	command -v $program >/dev/null ||
		fail "$program is missing; on Debian: apt-get install gcc make pkgconf tar xz-utils." \
			"On other systems, set PYTHON_FT to a free-threaded Python."
done
missing=()
for package in libbz2-dev libffi-dev liblzma-dev libsqlite3-dev libssl-dev zlib1g-dev; do
	# shellcheck disable=SC2016 # dpkg-query has variables of its own
	dpkg-query -W -f '${db:Status-Abbrev}' $package 2>/dev/null | grep -q '^ii' ||
		missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || fail "missing; apt-get install ${missing[*]}"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || fail "$keyring is missing; apt-get install debian-archive-keyring"

# -- Download the source ------------------------------------------------------
# Use separate package lists, so that the machine's own apt is not changed. The mirror is the same.

sources=$PWD/.cache/python3.13-source
if [ ! -e "$sources/fetched" ]; then
	rm -rf "$sources"
	mkdir -p "$sources/lists/partial" "$sources/cache/archives/partial"
	# shellcheck disable=SC2016 # as above
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
		sort -u | head -n 1)
	[ -n "$mirror" ] || fail "this machine's apt has no mirror of Debian; set PYTHON_FT"
	echo "deb-src [signed-by=$keyring] $mirror trixie main" >"$sources/trixie.list"
	apt=(
		apt-get -q
		-o "Dir::Etc::SourceList=$sources/trixie.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$sources/lists" -o "Dir::Cache=$sources/cache"
		-o "APT::Sandbox::User=$(id -un)"
	)
	"${apt[@]}" update >&2
	(cd "$sources" && "${apt[@]}" source --download-only python3.13 >&2)
	touch "$sources/fetched"
fi

# -- Build it -----------------------------------------------------------------
# Use upstream's tarball: Debian's patches install files in Debian's own places.

build=$PWD/.cache/build-$name
rm -rf "$build"
mkdir -p "$build"
tar -xJf "$sources"/python3.13_*.orig.tar.xz --strip-components=1 -C "$build"
echo "building $name: the log is $build.log" >&2
(
	cd "$build"
	# ThreadSanitizer stops a process in which it finds a race, and CPython 3.13 has some.
	export TSAN_OPTIONS=report_bugs=0
	./configure -q --prefix="$prefix" --disable-test-modules "${flags[@]+"${flags[@]}"}"
	MAKEFLAGS=${MAKEFLAGS:--j2} make -s
	make -s install DESTDIR="$build/installed"
) >"$build.log" 2>&1 || {
	tail -n 30 "$build.log" >&2
	fail "could not build $name"
}
rm -rf "$prefix"
mv "$build/installed$prefix" "$prefix"
rm -r "$build"
echo "$python"
