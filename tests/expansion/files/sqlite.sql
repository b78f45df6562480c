create table people (name text, age integer, note text);
insert into people values ('alice', 42, 'first one');
insert into people values ('bob', 17, 'it''s bob');
insert into people values ('carol', null, '');
insert into people values ('dave', -1, 'a=b "quoted" \ back');
