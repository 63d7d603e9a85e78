// What scripts do: objects and closures, arrays and sorting, strings and regular expressions, maps,
// numbers, generators, JSON, exceptions. Prints a checksum of each part.
"use strict";

let state = 12345;
function random(n) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
}

function hash(text) {
    let h = 2166136261;
    for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
    return h >>> 0;
}

class Vector {
    constructor(x, y, z) {
        this.x = x;
        this.y = y;
        this.z = z;
    }
    plus(other) { return new Vector(this.x + other.x, this.y + other.y, this.z + other.z); }
    times(k) { return new Vector(this.x * k, this.y * k, this.z * k); }
    get length() { return Math.sqrt(this.x * this.x + this.y * this.y + this.z * this.z); }
}

class Body extends Vector {
    constructor(...at) {
        super(...at);
        this.speed = new Vector(0, 0, 0);
    }
    step(dt) {
        const moved = this.plus(this.speed.times(dt));
        [this.x, this.y, this.z] = [moved.x, moved.y, moved.z];
    }
}

function objects() {
    const bodies = Array.from({ length: 8 }, () => new Body(random(100), random(100), random(100)));
    for (let step = 0; step < 250; step++) {
        for (const a of bodies) {
            for (const b of bodies) {
                if (a === b) continue;
                const apart = b.plus(a.times(-1));
                a.speed = a.speed.plus(apart.times(1 / (1 + apart.length ** 3)));
            }
        }
        bodies.forEach((body) => body.step(0.01));
    }
    return bodies.map((body) => body.length.toFixed(6)).join();
}

function sorting() {
    const numbers = Array.from({ length: 20000 }, () => random(1000000));
    const names = numbers.slice(0, 4000).map((n) => "k" + n.toString(36));
    numbers.sort((a, b) => a - b);
    names.sort();
    return numbers[777] + names[99] + numbers.reduce((sum, n) => (sum + n) % 65521, 1);
}

function strings() {
    let text = "";
    for (let i = 0; i < 3000; i++) text += String.fromCharCode(97 + random(26)) + (random(7) ? "" : " 20" + random(100) + "-0" + random(10) + " ");
    const dates = text.match(/\d{4}-\d\d/g) || [];
    const swapped = text.replace(/(\w+) (\d+)-(\d+)/g, (_, word, year, month) => `${month}.${year}:${word.toUpperCase()}`);
    return dates.length + "," + hash(swapped) + "," + hash(swapped.split(/[aeiou]+/).reverse().join("|"));
}

function maps() {
    const counts = new Map(), seen = new Set(), plain = {};
    for (let i = 0; i < 40000; i++) {
        const key = "key" + random(3000);
        counts.set(key, (counts.get(key) || 0) + 1);
        seen.add(i ^ random(512));
        plain[key] = (plain[key] | 0) + i;
    }
    return [...counts.values()].reduce((a, b) => Math.max(a, b)) + "," + seen.size + "," + hash(Object.keys(plain).join());
}

function numbers() {
    const sieve = new Uint8Array(200000);
    let primes = 0;
    for (let i = 2; i < sieve.length; i++) {
        if (sieve[i]) continue;
        primes++;
        for (let j = 2 * i; j < sieve.length; j += i) sieve[j] = 1;
    }
    let big = 1n;
    for (let i = 1n; i < 300n; i++) big *= i;
    const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));
    return primes + "," + (big % 1000000007n) + "," + fib(24);
}

function* walk(tree) {
    if (!tree) return;
    yield* walk(tree.left);
    yield tree.value;
    yield* walk(tree.right);
}

function trees() {
    let root = null;
    for (let i = 0; i < 3000; i++) {
        const value = random(100000);
        let place = { right: root }, side = "right", holder = place;
        while (holder[side]) {
            holder = holder[side];
            side = value < holder.value ? "left" : "right";
        }
        holder[side] = { value, left: null, right: null };
        root = place.right;
    }
    let sum = 0;
    for (const value of walk(root)) sum = (sum * 31 + value) % 1000003;
    const copy = JSON.parse(JSON.stringify(root));
    let caught = 0;
    for (let i = 0; i < 3000; i++) {
        try {
            if (i % 3 === 0) throw new RangeError("x" + i);
        } catch (error) {
            caught += error.message.length;
        }
    }
    return sum + "," + copy.value + "," + caught;
}

for (let round = 0; round < 5; round++) {
    for (const part of [objects, sorting, strings, maps, numbers, trees]) print(part.name, part());
}
Promise.resolve(state).then((last) => print("done", last));
