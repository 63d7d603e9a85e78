-- A database in a file: ten thousand rows in one transaction, an index, joins, aggregates, a
-- rolled-back change, a recursive query and the library's own check of the file.
create table customer (id integer primary key, name text not null);
create table sale (id integer primary key, customer integer references customer, cents integer, day text);

begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 100)
insert into customer select i, printf('customer %03d', i) from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000)
insert into sale select i, i * 7919 % 100 + 1, i * 104729 % 10007, date('2024-01-01', (i % 366) || ' days') from n;
commit;
create index sale_by_customer on sale (customer, cents);

select 'rows', count(*), sum(cents), min(day), max(day) from sale;
select name, count(*), sum(cents) from sale join customer on customer.id = sale.customer
  group by customer.id order by sum(cents) desc, name limit 5;
select 'window', id, cents, rank() over (order by cents desc, id) from sale order by 4 limit 3;

begin;
delete from sale;
rollback;
select 'after rollback', count(*) from sale;

with recursive fib(a, b) as (select 0, 1 union all select b, a + b from fib where b < 1000000)
select 'fibonacci', group_concat(a, ' ') from fib;
select 'json', json_group_array(name) from (select name from customer order by id limit 3);
pragma integrity_check;
vacuum;
select 'pages', page_count > 0 from pragma_page_count;
